"""What is made of a model for OpenVINO: kept in the cache where the model was fetched to, and looked after there."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.artifacts.cache import Cache, Held
from engine.artifacts.resolve import Artifact, fetch
from engine.runtimes.openvino.cache import kept
from engine.schemas.model import ModelSpec
from engine.schemas.storage import StorageSpec


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """A file, fetched with a cache of 2,000 bytes."""
    (tmp_path / "model.gguf").write_bytes(b"weights")
    source = {"kind": "file", "path": str(tmp_path / "model.gguf"), "format": "gguf"}
    model = ModelSpec.model_validate({"name": "tiny", "sources": [source]})
    return fetch(model, ("gguf",), storage=StorageSpec(cache_dir=str(tmp_path / "own"), cache_max_bytes=2000))


def made(artifact: Artifact, name: str = "a") -> Held:
    """1,000 bytes that begin with the name, made of the artifact."""

    def make(temp: Path) -> Path:
        (temp / "fresh").mkdir()
        (temp / "fresh" / "graph.bin").write_bytes(name.encode().ljust(1000))
        return temp / "fresh"

    return kept(artifact, f"OpenVINO {name}", {"name": name}, make)


def test_it_lies_in_the_cache_that_the_run_names(artifact: Artifact, tmp_path: Path) -> None:
    held = made(artifact)
    assert held.path.is_relative_to(tmp_path / "own")
    assert (held.path / "graph.bin").read_bytes().startswith(b"a ")


def test_it_is_listed_with_its_size_and_what_it_was_made_of(artifact: Artifact, tmp_path: Path) -> None:
    held = made(artifact)
    (entry,) = Cache(tmp_path / "own").entries()
    assert (entry.cid, entry.name, entry.size_bytes, entry.in_use) == (held.cid, "model.gguf", 1000, True)
    assert entry.source == f"OpenVINO a of file {tmp_path / 'model.gguf'}"


def test_it_is_found_again(artifact: Artifact) -> None:
    assert made(artifact) == made(artifact)


def test_other_files_are_made_anew(artifact: Artifact) -> None:
    made(artifact)
    artifact.path.write_bytes(b"other weights")
    with pytest.raises(RuntimeError, match="asked"):
        kept(artifact, "OpenVINO a", {"name": "a"}, refuse)


def refuse(temp: Path) -> Path:
    (temp / "half").write_bytes(b"half")
    raise RuntimeError("asked")


def test_what_fails_leaves_nothing(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="asked"):
        kept(artifact, "OpenVINO a", {"name": "a"}, refuse)
    assert not list((tmp_path / "own").rglob("half"))
    assert Cache(tmp_path / "own").entries() == []


def test_the_least_recently_used_goes_when_the_cache_is_full(artifact: Artifact, tmp_path: Path) -> None:
    made(artifact, "a")
    for name in "bc":
        made(artifact, name)
    assert sorted(entry.source.split(" of ")[0] for entry in Cache(tmp_path / "own").entries()) == [
        "OpenVINO b",
        "OpenVINO c",
    ]


def test_what_is_in_use_is_never_evicted(artifact: Artifact, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "own")
    held = made(artifact)
    assert cache.prune(0) == []
    assert not cache.remove(held.cid)
    assert (held.path / "graph.bin").is_file()
    del held
    assert len(cache.prune(0)) == 1
    assert cache.entries() == []


def test_what_was_evicted_is_made_again(artifact: Artifact, tmp_path: Path) -> None:
    cid = made(artifact).cid
    assert Cache(tmp_path / "own").remove(cid)
    assert (made(artifact).path / "graph.bin").is_file()
