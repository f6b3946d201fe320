"""The files of conf/provider: what a user can choose by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.cli.schema import render
from engine.config.compose import compose
from engine.core.errors import ConfigError
from engine.core.option_files import options
from engine.core.registry import DIALECTS
from engine.schemas.provider import RemoteProviderSpec, TransportSpec

CONF = Path(__file__).resolve().parents[2] / "conf"
FOLDER = CONF / "provider"
YAML_ONLY = {
    "azure_openai", "cerebras", "cohere", "deepseek", "fireworks", "litellm", "llama_cpp", "lm_studio", "mistral",
    "nvidia_nim", "openrouter", "ovms", "perplexity", "sglang", "together", "vllm", "xai",
}  # fmt: skip
"""Those that need nothing but a file, for they speak the OpenAI wire."""


FILES: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.yaml"))
}
BASE = FILES.pop("_remote")
REMOTE = {name: file for name, file in FILES.items() if file.get("defaults") == ["_remote"]}


def said_twice(file: dict[str, Any], base: dict[str, Any]) -> list[str]:
    """Lists the knobs that have the base's value in a file that builds on it."""
    found = []
    for knob, value in file.items():
        if isinstance(value, dict) and isinstance(base.get(knob), dict):
            found += [f"{knob}.{below}" for below in said_twice(value, base[knob])]
        elif knob in base and value == base[knob]:
            found.append(knob)
    return found


def test_every_provider_that_is_only_a_file_has_it() -> None:
    assert {name for name, file in REMOTE.items() if "dialect" not in file} >= YAML_ONLY


def test_the_base_has_every_knob_with_the_value_that_it_has_without_a_file() -> None:
    assert set(BASE) == set(RemoteProviderSpec.model_fields)
    assert set(BASE["transport"]) == set(TransportSpec.model_fields)
    open_ones = {"name": "any", "base_url": "https://any.example"}
    given = RemoteProviderSpec.model_validate(BASE | open_ones)
    assert given == RemoteProviderSpec.model_validate({"kind": "remote"} | open_ones)


@pytest.mark.parametrize("name", REMOTE)
def test_a_file_goes_by_its_name_and_repeats_nothing_of_the_base(name: str) -> None:
    file = REMOTE[name]
    assert file["name"] == name
    assert said_twice(file, BASE) == []


@pytest.mark.parametrize("name", REMOTE)
def test_a_file_is_valid(name: str) -> None:
    said = {knob: value for knob, value in REMOTE[name].items() if knob != "defaults"}
    provider = RemoteProviderSpec.model_validate(BASE | said)
    assert provider.dialect in DIALECTS.kinds()
    assert provider.credential.env or not provider.credential.required


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_file_composes(name: str) -> None:
    provider = compose([f"provider={name}", "model=remote", "model.name=any"]).spec.provider
    file = FILES[name]
    other = (file.get("defaults") or ["_remote"])[0]
    assert provider.name == (name if other == "_remote" or not isinstance(other, str) else other)
    if provider.kind == "remote":
        assert provider.credential.env == tuple((file if "credential" in file else FILES[other])["credential"]["env"])


def test_the_base_is_no_option() -> None:
    assert "_remote" not in options([CONF])["provider"]


@pytest.mark.slow
@pytest.mark.parametrize("words", ["provider=_remote", "fallbacks=[{provider: _remote}]"])
def test_the_base_can_not_be_chosen(words: str) -> None:
    with pytest.raises(ConfigError, match=r"provider.*: no .*option") as caught:
        compose([words])
    assert "did you mean _remote" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--config-dir", "hydra.searchpath"])
def test_a_config_repos_provider_builds_on_the_base(way: str, tmp_path: Path) -> None:
    (tmp_path / "provider").mkdir()
    file = tmp_path / "provider" / "lab.yaml"
    file.write_text("defaults: [_remote]\nname: lab\nbase_url: http://127.0.0.1:9/v1\ncredential: {required: false}\n")
    words = ["provider=lab", "model=remote", "model.name=any"]
    if way == "--config-dir":
        provider = compose(words, tmp_path).spec.provider
    else:
        provider = compose([*words, f"hydra.searchpath=[{tmp_path}]"]).spec.provider
    assert isinstance(provider, RemoteProviderSpec)
    assert (provider.name, provider.transport.read_s, provider.credential.required) == ("lab", 600.0, False)


@pytest.mark.slow
def test_a_file_that_leaves_out_its_address_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "provider").mkdir()
    (tmp_path / "provider" / "lab.yaml").write_text("defaults: [_remote]\nname: lab\n")
    with pytest.raises(ConfigError, match=r"provider\.base_url: needs a value; add provider\.base_url="):
        compose(["provider=lab"], tmp_path)


def test_the_schema_knows_what_a_defaults_list_may_name(tmp_path: Path) -> None:
    (tmp_path / "provider").mkdir()
    (tmp_path / "provider" / "lab.yaml").write_text("defaults: [vllm]\n")
    schema = json.loads(render("provider", [CONF, tmp_path]))
    names, _, below = schema["$defs"]["DefaultsList"]["items"]["anyOf"]
    assert {"_remote", "_self_", "vllm", "lab"} <= set(names["enum"])
    assert "flaky" in below["properties"]["faults"]["anyOf"][0]["enum"]
    run = json.loads(render("run"))["$defs"]["DefaultsList"]["items"]["anyOf"][2]["properties"]
    assert "_remote" not in run["provider"]["anyOf"][0]["enum"]


def test_the_schema_asks_for_a_kind_only_where_no_defaults_list_can_bring_it() -> None:
    schema = json.loads(render("provider"))
    assert (schema["if"], schema["then"]) == ({"not": {"required": ["defaults"]}}, {"required": ["kind"]})
    assert all(schema["$defs"][f"{kind}ProviderSpec"]["required"] == [] for kind in ("Remote", "Local", "Simulated"))
