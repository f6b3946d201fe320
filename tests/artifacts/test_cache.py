"""The cache on a real disk: content ids, eviction, locks, damage."""

from __future__ import annotations

import gc
import hashlib
import os
from pathlib import Path

import pytest

from engine.artifacts.cache import Cache, Held, tree_cid
from engine.core.cid import cid
from engine.core.errors import SetupError
from tests.artifacts.conftest import Fetch
from tests.servers.files import FileServer


def keep(cache: Cache, data: bytes, name: str = "model.gguf") -> Held:
    with cache.fetching(cid(data), lambda: None, lambda: None) as folder:
        (folder / "file").write_bytes(data)
        return cache.keep(folder / "file", cid(data), name, f"test {name}")


def test_a_file_is_found_under_its_content_id(tmp_path: Path) -> None:
    held = keep(Cache(tmp_path), b"one")
    assert held.path == tmp_path / "objects" / cid(b"one") / "model.gguf"
    again = Cache(tmp_path).use(cid(b"one"))
    assert again is not None
    assert again.path.read_bytes() == b"one"


def test_the_same_bytes_under_another_name_are_kept_once(tmp_path: Path) -> None:
    keep(Cache(tmp_path), b"one", "a.bin")
    other = keep(Cache(tmp_path), b"one", "b.gguf")
    assert other.path.name == "b.gguf"
    assert other.path.stat().st_nlink == 2
    assert len(Cache(tmp_path).entries()) == 1


def test_a_folder_is_kept_with_its_files(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.fetching("key", lambda: None, lambda: None) as folder:
        (folder / "tree" / "sub").mkdir(parents=True)
        (folder / "tree" / "sub" / "a").write_bytes(b"a")
        name = tree_cid(folder / "tree")
        held = cache.keep(folder / "tree", name, "m", "test")
        cache.refer("key", held, "test")
    assert (held.path / "sub" / "a").read_bytes() == b"a"
    assert Cache(tmp_path).lookup("key") == held
    assert cache.entries()[0].size_bytes == 1


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=2000)
    for number, name in enumerate((b"a", b"b", b"c")):
        data = name * 800
        keep(cache, data)
        os.utime(tmp_path / "locks" / f"{cid(data)}.lock", (number, number))
    gc.collect()
    assert {entry.cid for entry in cache.entries()} == {cid(b"b" * 800), cid(b"c" * 800)}


def test_a_use_makes_it_the_most_recent(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number, name in enumerate((b"a", b"b")):
        keep(cache, name * 800)
        os.utime(tmp_path / "locks" / f"{cid(name * 800)}.lock", (number, number))
    cache.use(cid(b"a" * 800))
    gone = Cache(tmp_path).prune(max_bytes=1000)
    assert [entry.cid for entry in gone] == [cid(b"b" * 800)]


def test_what_is_in_use_is_not_evicted(tmp_path: Path) -> None:
    held = keep(Cache(tmp_path), b"in use" * 100)
    assert Cache(tmp_path).prune(max_bytes=0) == []
    assert Cache(tmp_path).entries()[0].in_use
    assert not Cache(tmp_path).remove(held.cid)
    assert held.path.exists()


def test_what_is_no_longer_used_can_go(tmp_path: Path) -> None:
    held = keep(Cache(tmp_path), b"used")
    path = held.path
    del held
    gc.collect()
    assert len(Cache(tmp_path).prune(max_bytes=0)) == 1
    assert not path.exists()


def test_another_content_under_the_id_is_found_by_verifying(tmp_path: Path) -> None:
    held = keep(Cache(tmp_path), b"right")
    assert Cache(tmp_path).verify(held.cid)
    held.path.write_bytes(b"wrong")
    assert not Cache(tmp_path).verify(held.cid)


def test_a_file_that_is_cut_is_not_used(tmp_path: Path) -> None:
    held = keep(Cache(tmp_path), b"whole")
    held.path.write_bytes(b"who")
    assert Cache(tmp_path).use(held.cid) is None


def test_what_a_killed_download_left_is_given_to_the_next(tmp_path: Path) -> None:
    with Cache(tmp_path).fetching("key", lambda: None, lambda: None) as folder:
        (folder / "file").write_bytes(b"half")
    with Cache(tmp_path).fetching("key", lambda: None, lambda: None) as folder:
        assert (folder / "file").read_bytes() == b"half"


def test_pruning_deletes_broken_downloads_but_not_those_under_way(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.fetching("old", lambda: None, lambda: None) as folder:
        (folder / "file").write_bytes(b"half")
    with cache.fetching("now", lambda: None, lambda: None) as folder:
        Cache(tmp_path).prune()
        assert folder.exists()
    assert not (tmp_path / "partial" / "old").exists()


def test_what_a_killed_deletion_left_is_replaced(tmp_path: Path) -> None:
    held = keep(Cache(tmp_path), b"one")
    path = held.path
    del held
    gc.collect()
    (tmp_path / "entries" / f"{cid(b'one')}.json").unlink()
    path.write_bytes(b"tor")
    assert keep(Cache(tmp_path), b"one").path.read_bytes() == b"one"


def test_pruning_deletes_what_a_killed_deletion_left(tmp_path: Path) -> None:
    path = keep(Cache(tmp_path), b"one").path
    gc.collect()
    (tmp_path / "entries" / f"{cid(b'one')}.json").unlink()
    Cache(tmp_path).prune()
    assert not path.exists()


def test_what_is_fetched_again_replaces_damage_that_its_size_does_not_show(tmp_path: Path) -> None:
    path = keep(Cache(tmp_path), b"right").path
    gc.collect()
    path.write_bytes(b"wrong")
    cache = Cache(tmp_path)
    with cache.fetching("key", lambda: None, lambda: None) as folder:
        (folder / "file").write_bytes(b"right")
        assert (
            cache.keep(folder / "file", cid(b"right"), "model.gguf", "test", replace=True).path.read_bytes() == b"right"
        )


@pytest.mark.slow
def test_offline_uses_what_is_there_and_says_what_is_not(
    files: FileServer, get: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.files["/a.gguf"] = files.files["/b.gguf"] = b"GGUF"
    first = get(f"{files.url}/a.gguf")
    monkeypatch.setenv("ENGINE_OFFLINE", "1")
    assert get(f"{files.url}/a.gguf").path == first.path
    with pytest.raises(SetupError, match=r"not in the cache, and storage\.offline \(or ENGINE_OFFLINE\) is set"):
        get(f"{files.url}/b.gguf")
    assert len(files.asked) == 1


@pytest.mark.slow
def test_a_limit_is_kept_while_models_are_fetched(files: FileServer, get: Fetch, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        files.files[f"/{name}.gguf"] = name.encode() * 50_000
        get(f"{files.url}/{name}.gguf", cache_max_bytes=120_000)
        gc.collect()
    assert [hashlib.sha256(path.read_bytes()).digest() for path in sorted(tmp_path.rglob("*.gguf"))] != []
    assert sum(entry.size_bytes for entry in Cache(tmp_path / "cache").entries()) <= 120_000


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/mounts").exists() or os.geteuid() != 0, reason="needs root on Linux")
def test_a_cache_on_a_read_only_disk_can_be_used_and_says_why_it_cant_be_filled(
    files: FileServer, get: Fetch, tmp_path: Path
) -> None:
    import subprocess

    files.files["/a.gguf"] = files.files["/b.gguf"] = b"GGUF"
    get(f"{files.url}/a.gguf")
    cache = str(tmp_path / "cache")
    if subprocess.run(["mount", "--bind", "-o", "ro", cache, cache], capture_output=True).returncode:
        pytest.skip("this machine does not allow a read-only mount")
    try:
        assert get(f"{files.url}/a.gguf").path.read_bytes() == b"GGUF"
        with pytest.raises(SetupError, match=r"can't be written .*set ENGINE_CACHE"):
            get(f"{files.url}/b.gguf")
    finally:
        subprocess.run(["umount", cache], check=True)
