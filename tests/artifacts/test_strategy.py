"""Which of several sources is used: in their order, or the fastest."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine.core.errors import SetupError
from tests.artifacts.conftest import Fetch
from tests.servers.files import FileServer

pytestmark = pytest.mark.slow

DATA = b"GGUF" * 500_000


@pytest.fixture
def slow(files: FileServer) -> FileServer:
    files.files["/slow.gguf"] = DATA
    files.manners.pause_s = 0.1
    return files


def test_sources_are_tried_in_their_order(slow: FileServer, get: Fetch) -> None:
    slow.manners.pause_s = 0.0
    with FileServer({"/quick.gguf": DATA}) as quick:
        found = get(f"{slow.url}/slow.gguf", f"{quick.url}/quick.gguf")
        assert quick.asked == []
    assert found.source == f"{slow.url}/slow.gguf"


def test_the_fastest_wins_and_the_others_stop(slow: FileServer, get: Fetch) -> None:
    with FileServer({"/quick.gguf": DATA}) as quick:
        started = time.monotonic()
        found = get(f"{slow.url}/slow.gguf", f"{quick.url}/quick.gguf", strategy="fastest")
        assert time.monotonic() - started < 2.5  # the slow one takes over three seconds
    assert found.source == f"{quick.url}/quick.gguf"
    assert found.path.read_bytes() == DATA


def test_the_fastest_whose_digest_is_wrong_does_not_win(slow: FileServer, get: Fetch) -> None:
    slow.manners.pause_s = 0.01
    with FileServer({"/quick.gguf": b"forged"}) as quick:
        found = get(f"{slow.url}/slow.gguf", f"{quick.url}/quick.gguf#sha256={'0' * 64}", strategy="fastest")
    assert found.source == f"{slow.url}/slow.gguf"


def test_when_none_wins_each_is_named(files: FileServer, get: Fetch, tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught:
        get(f"{files.url}/none.gguf", str(f"file://{tmp_path}/none.gguf"), strategy="fastest")
    assert "has no such file (HTTP 404)" in str(caught.value)
    assert "there is no such file or folder" in str(caught.value)
