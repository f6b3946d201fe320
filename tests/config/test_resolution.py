"""Interpolations: resolved once, and limited where a config repo writes them."""

from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from engine.config.compose import compose
from engine.config.overrides import parse, quoted
from engine.config.resolution import Resolution
from engine.core.errors import ConfigError

_PIECES = st.sampled_from(
    ["${", "}", "\\", "$", "oc.env:", "X", ":", "'", '"', "[", "{", ",", "=", " ", "???", "é", "a"]
)
TEXTS = st.lists(_PIECES, max_size=12).map("".join)
"""Texts of what an interpolation is written with."""


@given(TEXTS)
def test_what_a_variable_holds_is_text(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HELD", text)
        made = Resolution(OmegaConf.create({"a": "${oc.env:HELD}", "b": ["${a}"]}))
    assert (made.plain, made.problems) == ({"a": text, "b": [text]}, {})


@given(TEXTS)
def test_a_quoted_text_is_the_same_text_again(text: str) -> None:
    value = parse([f"k={quoted(text)}"])[0].value()
    assert Resolution(OmegaConf.create({"k": value})).plain["k"] == text or text.strip() == "???"


def test_a_variable_does_not_bring_in_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "${oc.env:B}")
    monkeypatch.setenv("B", "leaked")
    assert compose(["provider=simulated", "output.root=${oc.env:A}"]).spec.output.root == "${oc.env:B}"
    fallback = "fallbacks=[{provider: simulated, model: {use: remote, name: '${oc.env:A}'}}]"
    assert compose(["provider=simulated", fallback]).spec.fallbacks[0].model.name == "${oc.env:B}"


def test_an_escaped_interpolation_is_a_literal() -> None:
    assert compose(["provider=simulated", r'output.root="a\${b}c"']).spec.output.root == "a${b}c"


def test_now_is_the_time_of_the_composition() -> None:
    moment = datetime(2031, 2, 3, 4, 5, 6)
    made = compose(["provider=simulated", "output.root=outputs/${now:%Y-%m-%d}/${now:%H-%M-%S}"], now=moment)
    assert made.spec.output.root == "outputs/2031-02-03/04-05-06"


def test_every_key_without_a_value_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "policy" / "retry").mkdir(parents=True)
    file = tmp_path / "policy" / "retry" / "mine.yaml"
    file.write_text("defaults: [default]\nmax_retries: ${nowhere}\nmax_delay_s: ${oc.env:HOME_OF_NO_ONE}\n")
    with pytest.raises(ConfigError) as caught:
        compose(["provider=simulated", "policy/retry=mine"], tmp_path)
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["policy.retry.max_retries", "policy.retry.max_delay_s"]
    assert all(str(file) in line for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:PRIVATE}",
        "${oc.env:${.n}}",
        "${oc.${.e}:PRIVATE}",
        "${oc.env:PRIVATE,x}",
        '${ oc.env : "PRIVATE" }',
        "${oc.decode:'${oc.env:PRIVATE}'}",
    ],
)
def test_a_config_repo_reads_only_listed_variables(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVATE", "of-this-machine")
    (tmp_path / "provider").mkdir()
    file = tmp_path / "provider" / "mine.yaml"
    file.write_text(f"kind: simulated\nname: {text!r}\nn: PRIVATE\ne: env\n".replace("n: P", "'n': P"))
    with pytest.raises(ConfigError) as caught:
        compose(["provider=mine"], tmp_path)
    assert "ENGINE_CONFIG_ENV=PRIVATE" in str(caught.value)
    assert "of-this-machine" not in str(caught.value)


def test_a_variable_that_the_user_lists_or_types_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVATE", "of-this-machine")
    (tmp_path / "provider").mkdir()
    (tmp_path / "provider" / "mine.yaml").write_text("kind: simulated\nname: ${oc.env:PRIVATE}\n")
    monkeypatch.setenv("ENGINE_CONFIG_ENV", "OTHER, PRIVATE")
    assert compose(["provider=mine"], tmp_path).spec.provider.name == "of-this-machine"
    monkeypatch.delenv("ENGINE_CONFIG_ENV")
    made = compose(["provider=simulated", "output.root=${oc.env:PRIVATE}"], tmp_path)
    assert made.spec.output.root == "of-this-machine"
