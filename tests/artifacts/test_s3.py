"""Against SeaweedFS, a real S3 store that enforces signatures."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from random import Random

import pytest

from engine.artifacts.bucket import Bucket
from engine.artifacts.resolve import job_of
from engine.core.errors import SetupError
from engine.schemas.storage import StorageSpec
from tests.artifacts.conftest import Fetch
from tests.servers.files import FileServer
from tests.servers.seaweed import BUCKET, SECRET_KEY, Store

pytest.importorskip("obstore")
pytestmark = pytest.mark.slow

MIB = 1024 * 1024
SMALL_PARTS = {"part_bytes": 5 * MIB, "parallel": 3}


@pytest.fixture(scope="module")
def large() -> bytes:
    """Three parts and a bit."""
    return Random(1).randbytes(16 * MIB + 1000)


def bucket(name: str = BUCKET, **s3: object) -> Bucket:
    return Bucket(name, job_of(StorageSpec.model_validate({"s3": {**SMALL_PARTS, **s3}, "tries": 2})))


def test_what_is_put_can_be_got_headed_listed_and_deleted(s3: Store, tmp_path: Path) -> None:
    here = bucket()
    put = here.put(b"hello", "basics/a.txt")
    assert (put.key, put.size_bytes) == ("basics/a.txt", 5)
    here.put(b"world!", "basics/b/c.txt")
    assert [(item.key, item.size_bytes) for item in here.list("basics/")] == [
        ("basics/a.txt", 5),
        ("basics/b/c.txt", 6),
    ]
    assert [item.key for item in here.list("basics/a")] == ["basics/a.txt"]
    assert here.get("basics/a.txt", tmp_path / "a") == hashlib.sha256(b"hello").hexdigest()
    here.delete(["basics/a.txt", "basics/never.txt"])
    with pytest.raises(SetupError, match=r"s3://models has no 'basics/a\.txt'"):
        here.head("basics/a.txt")


def test_a_large_file_goes_up_in_parts_and_comes_down_in_ranges(s3: Store, tmp_path: Path, large: bytes) -> None:
    (tmp_path / "up").write_bytes(large)
    put = bucket().put(tmp_path / "up", "large/file.bin")
    assert put.size_bytes == len(large)
    assert put.etag is not None
    assert put.etag.strip('"').endswith("-4")  # S3's tag of an upload of four parts
    bucket().get("large/file.bin", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == large


@pytest.mark.parametrize("key", ["names/a b.txt", "names/ü.txt", "names/p%20q.txt", "names/plus+x?.txt"])
def test_keys_with_odd_characters_stay_as_they_are(s3: Store, tmp_path: Path, key: str) -> None:
    bucket().put(b"odd", key)
    assert key in [item.key for item in bucket().list("names/")]
    bucket().get(key, tmp_path / "odd")
    assert (tmp_path / "odd").read_bytes() == b"odd"


def test_a_key_that_no_path_can_have_is_refused(s3: Store) -> None:
    with pytest.raises(SetupError, match="contained empty path segment"):
        bucket().put(b"x", "a//b")


def test_an_empty_object_is_an_empty_file(s3: Store, tmp_path: Path) -> None:
    bucket().put(b"", "empty")
    bucket().get("empty", tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""


def test_ranges_that_are_here_are_not_fetched_again(s3: Store, tmp_path: Path, large: bytes) -> None:
    here = bucket()
    here.put(large, "resume/file.bin")
    etag = here.head("resume/file.bin").etag
    into = tmp_path / "file"
    # What a killed download leaves: two ranges, of which one is marked by other bytes, and the note of them.
    into.write_bytes(b"\1" * (5 * MIB) + large[5 * MIB : 10 * MIB])
    state = {"identity": [etag, len(large), None, 5 * MIB], "done": [0, 1]}
    (tmp_path / "file.state").write_text(json.dumps(state))
    here.get("resume/file.bin", into)
    assert into.read_bytes() == b"\1" * (5 * MIB) + large[5 * MIB :]


def test_ranges_of_an_older_object_are_not_used(s3: Store, tmp_path: Path, large: bytes) -> None:
    here = bucket()
    here.put(large, "changed/file.bin")
    into = tmp_path / "file"
    into.write_bytes(b"\1" * len(large))
    state = {"identity": ['"another"', len(large), None, 5 * MIB], "done": [0, 1, 2, 3]}
    (tmp_path / "file.state").write_text(json.dumps(state))
    here.get("changed/file.bin", into)
    assert into.read_bytes() == large


def test_another_digest_is_refused(s3: Store, tmp_path: Path) -> None:
    bucket().put(b"weights", "digest.bin")
    with pytest.raises(SetupError, match=f"expected {'0' * 64}: it was not used"):
        bucket().get("digest.bin", tmp_path / "x", sha256="0" * 64)
    assert not (tmp_path / "x").exists()


def test_a_presigned_url_needs_no_keys_until_it_is_over(s3: Store) -> None:
    here = bucket()
    here.put(b"shared", "shared.txt")
    url = here.presign("shared.txt", 60)
    with urllib.request.urlopen(url) as reply:
        assert reply.read() == b"shared"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"))
    assert refused.value.code == 403


def test_a_presigned_url_can_allow_a_put(s3: Store, tmp_path: Path) -> None:
    url = bucket().presign("dropped.txt", 60, "PUT")
    with urllib.request.urlopen(urllib.request.Request(url, data=b"from outside", method="PUT")):
        pass
    bucket().get("dropped.txt", tmp_path / "dropped")
    assert (tmp_path / "dropped").read_bytes() == b"from outside"


def test_an_older_version_can_be_read(s3: Store, tmp_path: Path) -> None:
    shell = [str(s3.weed), "shell", f"-master={s3.master}", f"-filer={s3.filer}"]
    commands = "s3.bucket.create -name versioned\ns3.bucket.versioning -name versioned -enable\n"
    subprocess.run(shell, input=commands, text=True, capture_output=True, timeout=30, check=True)
    here = bucket("versioned")
    first = here.put(b"one", "model.bin")
    second = here.put(b"two", "model.bin")
    assert first.version
    assert first.version != second.version
    here.get("model.bin", tmp_path / "old", version=first.version)
    here.get("model.bin", tmp_path / "new")
    assert ((tmp_path / "old").read_bytes(), (tmp_path / "new").read_bytes()) == (b"one", b"two")


def test_an_endpoint_that_is_down_is_passed_over(s3: Store, tmp_path: Path) -> None:
    bucket().put(b"weights", "failover.bin")
    with FileServer({}) as failing:
        failing.manners.statuses = [500] * 50
        here = bucket(endpoints=["http://127.0.0.1:9", failing.url, s3.url], retries=0)
        here.get("failover.bin", tmp_path / "a")
        asked = len(failing.asked)
        here.get("failover.bin", tmp_path / "b")
        assert (asked, len(failing.asked)) == (1, 1)  # left out while its circuit is open
    assert (tmp_path / "b").read_bytes() == b"weights"


def test_when_all_endpoints_are_down_each_is_named(s3: Store, tmp_path: Path) -> None:
    with FileServer({}) as failing:
        failing.manners.statuses = [503] * 50
        with pytest.raises(SetupError) as caught:
            bucket(endpoints=["http://127.0.0.1:9", failing.url], retries=0).get("x", tmp_path / "x")
    assert "http://127.0.0.1:9: HTTP error" in str(caught.value)
    assert f"{failing.url}: HTTP 503" in str(caught.value)


def test_wrong_keys_are_told_without_showing_them(s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_SECRET_KEY", "wrong-secret-0123456789")
    with pytest.raises(SetupError) as caught:
        bucket().put(b"x", "x")
    assert "HTTP 403 SignatureDoesNotMatch" in str(caught.value)
    assert "check S3_ACCESS_KEY, S3_SECRET_KEY" in str(caught.value)
    chain = [caught.value, caught.value.__cause__]
    assert not any("wrong-secret" in repr(error) for error in chain)


def test_a_store_that_echoes_the_keys_does_not_get_them_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("S3_ACCESS_KEY", "canary-access-key")
    monkeypatch.setenv("S3_SECRET_KEY", "canary-secret-key")
    with FileServer({}) as echo:
        echo.manners.refusal = b"<Error><Code>Bad</Code><Message>canary-access-key canary-secret-key</Message></Error>"
        with pytest.raises(SetupError) as caught:
            bucket(endpoints=[echo.url], retries=0).put(b"x", "x")
    assert "HTTP 400 Bad *** ***" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_half_of_the_keys_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ACCESS_KEY", "only-half")
    monkeypatch.delenv("S3_SECRET_KEY", raising=False)
    with pytest.raises(SetupError, match="S3_ACCESS_KEY is set, but S3_SECRET_KEY is not"):
        bucket(endpoints=["http://127.0.0.1:9"])


def test_no_keys_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("S3_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SetupError, match=r"export MY_KEY=… and S3_SECRET_KEY=…, or say storage\.s3\.anonymous=true"):
        bucket(endpoints=["http://127.0.0.1:9"], access_key_env="MY_KEY")


def test_a_model_of_one_object_is_cached(s3: Store, get: Fetch) -> None:
    bucket().put(b"GGUF weights", "source/model.gguf")
    found = get(f"s3://{BUCKET}/source/model.gguf")
    assert (found.path.name, found.path.read_bytes(), found.format) == ("model.gguf", b"GGUF weights", "gguf")
    bucket().delete(["source/model.gguf"])
    assert get(f"s3://{BUCKET}/source/model.gguf").path == found.path


def test_a_model_of_a_prefix_is_a_folder(s3: Store, get: Fetch) -> None:
    for name, data in {"config.json": b"{}", "model.safetensors": b"w", "1_Pooling/config.json": b"[]"}.items():
        bucket().put(data, f"folder/{name}")
    path = get(f"s3://{BUCKET}/folder/?format=safetensors").path
    assert sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()) == [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
    ]


def test_a_prefix_without_objects_is_said(s3: Store, get: Fetch) -> None:
    with pytest.raises(SetupError, match=r"s3://models has nothing below 'nothing/'"):
        get(f"s3://{BUCKET}/nothing/?format=safetensors")


def test_the_secret_is_in_no_file_of_the_cache(s3: Store, get: Fetch, tmp_path: Path) -> None:
    bucket().put(b"GGUF", "canary/model.gguf")
    get(f"s3://{BUCKET}/canary/model.gguf")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET_KEY.encode() in path.read_bytes()]
