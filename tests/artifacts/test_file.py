"""Files that are already here."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.artifacts.resolve import fetch
from engine.core.errors import SetupError
from engine.schemas.model import ModelSpec
from engine.schemas.sources import FileSourceSpec


def model(*sources: FileSourceSpec) -> ModelSpec:
    return ModelSpec(name="m", sources=sources)


def test_a_file_is_used_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    found = fetch(model(FileSourceSpec(kind="file", path=str(path), format="gguf")), ("gguf",), cache_dir=tmp_path)
    assert (found.path, found.format) == (path.resolve(), "gguf")


def test_a_missing_file_is_reported_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    source = FileSourceSpec(kind="file", path=str(tmp_path / "modle.gguf"), format="gguf")
    with pytest.raises(SetupError, match=r"did you mean model\.gguf"):
        fetch(model(source), ("gguf",), cache_dir=tmp_path)


def test_sources_are_tried_in_order_and_others_formats_are_skipped(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    sources = (
        FileSourceSpec(kind="file", path=str(tmp_path / "a"), format="openvino"),
        FileSourceSpec(kind="file", path=str(tmp_path / "gone"), format="safetensors"),
        FileSourceSpec(kind="file", path=str(tmp_path / "b"), format="safetensors"),
        FileSourceSpec(kind="file", path=str(tmp_path / "c"), format="safetensors"),
    )
    assert fetch(model(*sources), ("safetensors",), cache_dir=tmp_path).path == (tmp_path / "b").resolve()


def test_when_none_works_each_source_is_named_with_its_reason(tmp_path: Path) -> None:
    sources = (
        FileSourceSpec(kind="file", path=str(tmp_path / "gone"), format="safetensors"),
        FileSourceSpec(kind="file", path=str(tmp_path), format="openvino"),
    )
    with pytest.raises(SetupError) as caught:
        fetch(model(*sources), ("safetensors", "gguf"), cache_dir=tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == "model.sources: no source of 'm' can be used here"
    assert "there is no such file" in lines[1]
    assert "holds openvino, and this runtime reads safetensors or gguf" in lines[2]
    assert lines[3].startswith("Next: ")


def test_a_model_without_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="names no source"):
        fetch(model(), ("gguf",), cache_dir=tmp_path)
