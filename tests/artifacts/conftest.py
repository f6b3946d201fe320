"""What the tests of fetching share: real servers on loopback, and models with one source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.artifacts.resolve import Artifact, fetch
from engine.schemas.model import ModelSpec
from engine.schemas.storage import StorageSpec
from tests.servers.files import FileServer
from tests.servers.gateway import Gateway
from tests.servers.seaweed import ACCESS_KEY, SECRET_KEY, Store, seaweed

FIXTURES = Path(__file__).parent / "fixtures"
Fetch = Callable[..., Artifact]


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    """An S3 store; its keys are in SECRET_KEY and ACCESS_KEY."""
    with seaweed() as running:
        yield running


@pytest.fixture
def s3(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store, with its keys in the environment."""
    monkeypatch.setenv("S3_ACCESS_KEY", ACCESS_KEY)
    monkeypatch.setenv("S3_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("S3_ENDPOINT", store.url)
    return store


@pytest.fixture
def files() -> Iterator[FileServer]:
    with FileServer({}) as server:
        yield server


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """A gateway that has the fixtures."""
    with Gateway(*sorted(FIXTURES.glob("*.car"))) as server:
        yield server


@pytest.fixture
def get(tmp_path: Path) -> Fetch:
    """Fetches the first of some sources: `get("https://…", tries=2)`; further arguments are knobs of `storage`."""

    def run(*sources: Any, notify: Any = None, **knobs: Any) -> Artifact:
        storage = StorageSpec.model_validate({"cache_dir": str(tmp_path / "cache"), **knobs})
        return fetch(ModelSpec(name="m", sources=sources), ("gguf", "safetensors"), storage=storage, notify=notify)

    return run
