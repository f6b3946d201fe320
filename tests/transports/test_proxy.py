"""engine/transports/proxy.py: a proxy that can't be used is a mistake of the setup, told before the first row."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.cli.main import main
from engine.core.errors import SetupError
from engine.schemas.provider import TransportSpec
from engine.transports.proxy import check_proxy

URL = "http://api.example.invalid/v1"
VARIABLES = [name for word in ("all", "http", "https", "no") for name in (f"{word}_proxy", f"{word.upper()}_PROXY")]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("kind", ["aiohttp", "httpx"])
@pytest.mark.parametrize("proxy", ["socks4://p:1", "gopher://u:canary@p:1", "ftp://p", "http://", "http://p:x", "://"])
@pytest.mark.parametrize("variable", ["ALL_PROXY", "http_proxy", None])
def test_a_proxy_that_cannot_be_used_is_refused(
    kind: str, proxy: str, variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv(variable, proxy)
    spec = TransportSpec.model_validate({"kind": kind, "proxy": None if variable else proxy})
    with pytest.raises(SetupError, match=r"Fix: .*trust_env=false") as caught:
        check_proxy(URL, spec)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("kind", ["aiohttp", "httpx", "grpc"])
@pytest.mark.parametrize("proxy", ["http://p:1", "https://u:p@p:1", "p:3128", ""])
def test_a_proxy_that_can_be_used_passes(kind: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    check_proxy(URL, TransportSpec.model_validate({"kind": kind}))


def test_what_is_reached_without_it_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    check_proxy(URL, TransportSpec(trust_env=False))
    monkeypatch.setenv("NO_PROXY", "example.invalid")
    check_proxy(URL, TransportSpec())


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_plan_and_run_tell_it_before_anything_is_begun(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    words = ["provider=vllm", f"provider.base_url={URL}", "model=remote", "model.name=m", "workload=jsonl"]
    assert main([verb, *words, "workload.path=in.jsonl", "output.dir=run"]) == 4
    said = capsys.readouterr()
    assert "a proxy of the kind socks5" in said.out + said.err
    assert not (tmp_path / "run").exists()
