"""The files of conf/provider: what a user can choose by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.core.registry import DIALECTS
from engine.schemas.provider import RemoteProviderSpec

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "provider"
YAML_ONLY = {
    "azure_openai", "cerebras", "cohere", "deepseek", "fireworks", "litellm", "llama_cpp", "lm_studio", "mistral",
    "nvidia_nim", "openrouter", "ovms", "perplexity", "sglang", "together", "vllm", "xai",
}  # fmt: skip
"""Those that need nothing but a file, for they speak the OpenAI wire."""


def remote_files() -> dict[str, dict[str, Any]]:
    read = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.yaml"))}
    return {name: body for name, body in read.items() if body.get("kind") == "remote"}


def test_every_provider_that_is_only_a_file_has_it() -> None:
    speaking = {name for name, body in remote_files().items() if body["dialect"] == "openai"}
    assert speaking >= YAML_ONLY


@pytest.mark.parametrize("name", remote_files())
def test_a_file_is_valid_and_goes_by_its_name(name: str) -> None:
    provider = RemoteProviderSpec.model_validate(remote_files()[name])
    assert provider.name == name
    assert provider.dialect in DIALECTS.kinds()
    assert provider.credential.env or not provider.credential.required
