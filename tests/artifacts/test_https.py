"""Files of a real web server on loopback, one that cuts, redirects and lies."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from engine.core.cid import cid
from engine.core.errors import SetupError
from tests.artifacts.conftest import Fetch
from tests.servers.files import FileServer

pytestmark = pytest.mark.slow

DATA = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def file(files: FileServer) -> None:
    files.files["/model.gguf"] = DATA


def test_a_file_is_kept_under_the_content_id_of_its_bytes(files: FileServer, get: Fetch) -> None:
    found = get(f"{files.url}/model.gguf")
    assert found.cid == cid(DATA)
    assert found.path.name == "model.gguf"
    assert found.path.parent.name == found.cid
    assert found.path.read_bytes() == DATA


@pytest.mark.parametrize("kind", ["aiohttp", "httpx"])
def test_either_client_goes_on_where_it_stopped(files: FileServer, get: Fetch, kind: str) -> None:
    files.manners.cut_after = [400_000]
    assert get(f"{files.url}/model.gguf", transport={"kind": kind}).path.read_bytes() == DATA
    assert files.ranges[1] is not None


def test_what_is_cached_is_not_asked_for_again(files: FileServer, get: Fetch) -> None:
    first = get(f"{files.url}/model.gguf")
    assert get(f"{files.url}/model.gguf").path == first.path
    assert len(files.asked) == 1


def test_a_digest_finds_what_came_from_elsewhere(files: FileServer, get: Fetch) -> None:
    get(f"{files.url}/model.gguf")
    found = get(f"https://elsewhere.example/other.gguf#sha256={SHA256}")
    assert found.path.name == "other.gguf"
    assert found.path.read_bytes() == DATA
    assert len(files.asked) == 1


def test_a_cut_download_goes_on_where_it_stopped(files: FileServer, get: Fetch) -> None:
    files.manners.cut_after = [400_000, 300_000]
    assert get(f"{files.url}/model.gguf").path.read_bytes() == DATA
    assert files.ranges == [None, "bytes=400000-", "bytes=700000-"]
    assert files.asked[1][1]["if-range"] == '"one"'


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(files: FileServer, get: Fetch) -> None:
    files.manners.cut_after = [400_000]
    files.manners.after_cut = {"/model.gguf": DATA[::-1]}
    assert get(f"{files.url}/model.gguf").path.read_bytes() == DATA[::-1]
    assert files.ranges == [None, "bytes=400000-"]


def test_a_server_without_ranges_is_read_from_the_start_again(files: FileServer, get: Fetch) -> None:
    files.manners.ranges = False
    files.manners.cut_after = [400_000]
    assert get(f"{files.url}/model.gguf").path.read_bytes() == DATA


def test_without_an_etag_or_a_digest_nothing_is_pieced_together(files: FileServer, get: Fetch) -> None:
    files.manners.etag = None
    files.manners.cut_after = [400_000]
    assert get(f"{files.url}/model.gguf").path.read_bytes() == DATA
    assert files.ranges == [None, None]


def test_a_server_that_is_busy_is_asked_again(files: FileServer, get: Fetch) -> None:
    files.manners.statuses = [503]
    assert get(f"{files.url}/model.gguf").path.read_bytes() == DATA


def test_a_server_that_never_recovers_is_given_up_with_its_last_word(files: FileServer, get: Fetch) -> None:
    files.manners.statuses = [500] * 9
    with pytest.raises(SetupError, match=r"answered HTTP 500 \(2 tries, storage\.tries\)"):
        get(f"{files.url}/model.gguf", tries=2)


def test_another_digest_is_refused_and_leaves_nothing(files: FileServer, get: Fetch, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=f"its sha256 is {SHA256}, expected {'0' * 64}: it was not used"):
        get(f"{files.url}/model.gguf#sha256={'0' * 64}")
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_what_an_old_download_left_is_not_trusted_over_the_digest(
    files: FileServer, get: Fetch, tmp_path: Path
) -> None:
    files.manners.cut_after = [400_000]
    with pytest.raises(SetupError, match="need not be fetched again"):
        get(f"{files.url}/model.gguf#sha256={SHA256}", tries=1)
    (part,) = (tmp_path / "cache" / "partial").glob("*/file")
    part.write_bytes(b"x" * 400_000)
    assert get(f"{files.url}/model.gguf#sha256={SHA256}").path.read_bytes() == DATA
    assert files.ranges == [None, "bytes=400000-", None]


def test_a_missing_file_is_not_asked_for_twice(files: FileServer, get: Fetch) -> None:
    with pytest.raises(SetupError, match=r"has no such file \(HTTP 404\)"):
        get(f"{files.url}/other.gguf")
    assert len(files.asked) == 1


def test_a_larger_file_than_allowed_is_refused_before_its_body(files: FileServer, get: Fetch, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"it is 1\.0 MB, more than storage\.max_bytes=1000 allows"):
        get(f"{files.url}/model.gguf", max_bytes=1000)
    assert not list((tmp_path / "cache").rglob("file"))


def test_a_token_goes_to_its_own_host_and_not_along_a_redirect(
    files: FileServer, get: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", "tok-0123456789abcdef")
    with FileServer({"/real.gguf": DATA}) as other:
        files.manners.redirects["/model.gguf"] = f"{other.url}/real.gguf"
        assert get(f"{files.url}/model.gguf#token_env=MODEL_TOKEN").path.read_bytes() == DATA
        assert files.asked[0][1]["authorization"] == "Bearer tok-0123456789abcdef"
        assert "authorization" not in other.asked[0][1]


def test_a_redirect_away_and_back_has_lost_the_token(
    files: FileServer, get: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", "tok-0123456789abcdef")
    with FileServer({}) as other:
        files.manners.redirects["/start.gguf"] = f"{other.url}/there"
        other.manners.redirects["/there"] = f"{files.url}/model.gguf"
        get(f"{files.url}/start.gguf#token_env=MODEL_TOKEN")
    assert "authorization" in files.asked[0][1]
    assert "authorization" not in files.asked[1][1]


def test_a_redirect_within_the_host_keeps_the_token(
    files: FileServer, get: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", "tok-0123456789abcdef")
    files.manners.redirects["/start.gguf"] = "/model.gguf"
    get(f"{files.url}/start.gguf#token_env=MODEL_TOKEN")
    assert files.asked[1][1]["authorization"] == "Bearer tok-0123456789abcdef"


def test_a_missing_token_is_named(files: FileServer, get: Fetch) -> None:
    with pytest.raises(SetupError, match=r"the environment variable NO_SUCH_TOKEN is not set"):
        get(f"{files.url}/model.gguf#token_env=NO_SUCH_TOKEN")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_out_of_http_is_refused(files: FileServer, get: Fetch, target: str) -> None:
    files.manners.redirects["/model.gguf"] = target
    with pytest.raises(SetupError, match="redirects to something that is not HTTP"):
        get(f"{files.url}/model.gguf")


def test_a_redirect_in_a_circle_ends(files: FileServer, get: Fetch) -> None:
    files.manners.redirects["/model.gguf"] = "/model.gguf"
    with pytest.raises(SetupError, match="redirects more than 8 times"):
        get(f"{files.url}/model.gguf")


def test_an_unreachable_server_is_named(get: Fetch) -> None:
    with pytest.raises(SetupError, match=r"http://127\.0\.0\.1:9: can't connect: .*check the address"):
        get("http://127.0.0.1:9/model.gguf", tries=1)
