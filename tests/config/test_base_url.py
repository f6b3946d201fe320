"""Addresses of providers from environment variables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.base_url import base_url
from engine.config.compose import compose

FORMS = {
    "127.0.0.1": "http://127.0.0.1:11434",
    "0.0.0.0": "http://127.0.0.1:11434",
    "0.0.0.0:8080": "http://127.0.0.1:8080",
    "localhost": "http://localhost:11434",
    "my-host": "http://my-host:11434",
    "my-host:1234": "http://my-host:1234",
    ":11434": "http://127.0.0.1:11434",
    ":56789": "http://127.0.0.1:56789",
    " 'my-host' ": "http://my-host:11434",
    "my-host:": "http://my-host:11434",
    "my-host:99999": "http://my-host:11434",
    "my-host:x": "http://my-host:11434",
    "my-host/ollama": "http://my-host:11434/ollama",
    "my-host:1/ollama/": "http://my-host:1/ollama",
    "http://my-host": "http://my-host:80",
    "https://my-host": "https://my-host:443",
    "https://my-host:8443/p": "https://my-host:8443/p",
    "ollama.com": "https://ollama.com:443",
    "::1": "http://[::1]:11434",
    "[::1]": "http://[::1]:11434",
    "[::1]:80": "http://[::1]:80",
    "[::]": "http://[::1]:11434",
    "::": "http://[::1]:11434",
}


@pytest.mark.parametrize(("text", "url"), FORMS.items())
def test_ollama_host_in_each_of_its_forms(text: str, url: str) -> None:
    assert base_url("OLLAMA_HOST", text) == url


@given(st.text("abc.-:[]/019 ", max_size=12))
def test_any_ollama_host_is_read(text: str) -> None:
    assert "://" in base_url("OLLAMA_HOST", text)


def test_ollama_is_called_at_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OLLAMA_API_URL", raising=False)
    monkeypatch.setenv("OLLAMA_HOST", "0.0.0.0")
    provider = compose(["provider=ollama", "model=remote", "model.name=m"]).spec.provider
    assert provider.model_dump()["base_url"] == "http://127.0.0.1:11434"


def test_another_variable_is_taken_as_it_is() -> None:
    assert base_url("VLLM_API_URL", "gpu-1/v1") == "http://gpu-1/v1"
    assert base_url("VLLM_API_URL", "https://gpu-1:8000/v1") == "https://gpu-1:8000/v1"
