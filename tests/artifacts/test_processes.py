"""Several processes, killed ones among them, on one cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from engine.artifacts.bucket import Bucket
from engine.artifacts.cache import Cache
from engine.artifacts.resolve import job_of
from engine.schemas.storage import StorageSpec
from tests.artifacts.conftest import Fetch
from tests.servers.files import FileServer
from tests.servers.gateway import Gateway
from tests.servers.seaweed import BUCKET, Store

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
CODE = """
import json, resource, sys
from engine.artifacts.resolve import fetch
from engine.schemas.model import ModelSpec
from engine.schemas.storage import StorageSpec
uri, knobs, limit, hold = json.loads(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
found = fetch(ModelSpec(name="m", sources=[uri]), ("gguf", "safetensors"), storage=StorageSpec.model_validate(knobs))
print(found.path, flush=True)
if hold:
    sys.stdin.readline()
"""


def start(uri: str, cache: Path, limit: int = 0, hold: bool = False, **knobs: object) -> subprocess.Popen[str]:
    """A process that fetches and prints the path; `hold`: and keeps it in use until its input ends."""
    words = json.dumps([uri, {"cache_dir": str(cache), **knobs}, limit, hold])
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", CODE, words], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def kill_when(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_two_processes_at_once_download_once(files: FileServer, tmp_path: Path) -> None:
    files.files["/model.gguf"] = b"GGUF" * 200_000
    files.manners.pause_s = 0.05
    both = [start(f"{files.url}/model.gguf", tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=30)[0] for process in both]
    assert said[0] == said[1] != ""
    assert len(files.asked) == 1


def test_a_killed_download_of_a_web_server_goes_on(files: FileServer, tmp_path: Path, get: Fetch) -> None:
    data = Random(1).randbytes(4 * MIB)
    files.files["/model.gguf"] = data
    files.manners.pause_s = 0.03
    uri = f"{files.url}/model.gguf#sha256={hashlib.sha256(data).hexdigest()}"
    cache = tmp_path / "cache"
    kill_when(start(uri, cache), lambda: any(part.stat().st_size > MIB for part in cache.glob("partial/*/file")))
    files.manners.pause_s = 0.0
    assert get(uri).path.read_bytes() == data
    resumed = files.ranges[-1]
    assert resumed is not None
    assert int(resumed.removeprefix("bytes=").removesuffix("-")) > MIB // 2


def test_a_killed_download_of_a_store_goes_on(s3: Store, tmp_path: Path) -> None:
    pytest.importorskip("obstore")
    data = Random(2).randbytes(60 * MIB)
    knobs = {"s3": {"part_bytes": 5 * MIB, "parallel": 1}}
    storage = StorageSpec.model_validate({"cache_dir": str(tmp_path), **knobs})
    Bucket(BUCKET, job_of(storage)).put(data, "killed/model.gguf")

    def done() -> list[int]:
        for state in tmp_path.glob("partial/*/file.state"):
            found: list[int] = json.loads(state.read_text())["done"]
            return found
        return []

    uri = f"s3://{BUCKET}/killed/model.gguf"
    for _ in range(10):  # a busy machine may look so late that the download is over
        kill_when(start(uri, tmp_path, **knobs), lambda: len(done()) >= 2)
        if 2 <= len(done()) < 12:
            break
        shutil.rmtree(tmp_path)
    assert 2 <= len(done()) < 12
    (part,) = tmp_path.glob("partial/*/file")
    with part.open("r+b") as file:
        file.write(b"marked")  # in the first range, which must not be fetched again
    out, problem = start(uri, tmp_path, **knobs).communicate(timeout=30)
    assert problem == ""
    assert Path(out.strip()).read_bytes() == b"marked" + data[6:]


def test_a_killed_download_of_a_gateway_goes_on(gateway: Gateway, tmp_path: Path, get: Fetch) -> None:
    root = "bafybeib2jgvgi6cpxwdgtyszp7daoh7g6iwlncida6prk2vixiuf3xpeo4"
    uri, knobs = f"ipfs://{root}?format=safetensors", {"ipfs": {"gateways": [gateway.url], "car": False}}
    gateway.manners.pause_s = 0.005
    cache = tmp_path / "cache"
    kill_when(start(uri, cache, **knobs), lambda: sum(1 for _ in cache.glob("partial/*/blocks/*")) > 100)
    gateway.manners.pause_s = 0.0
    gateway.asked.blocks.clear()
    assert len(list(get(uri, **knobs).path.iterdir())) == 400
    assert len(gateway.asked.blocks) < 515 - 90


def test_ctrl_c_during_a_download_ends_the_program_soon(files: FileServer, tmp_path: Path) -> None:
    files.files["/model.gguf"] = b"x" * 10 * MIB
    files.manners.pause_s = 0.2  # half a minute for all of it
    words = [f'model.sources=["{files.url}/model.gguf"]', "model.name=m", f"storage.cache_dir={tmp_path}/cache"]
    command = [sys.executable, "-m", "engine", *words, f"output.dir={tmp_path}/run", "telemetry.progress=off"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 20
    while not files.asked and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    said = process.communicate(timeout=30)[1]
    assert time.monotonic() - started < 8
    assert process.returncode == 130, said


def test_a_disk_that_fills_up_is_named(files: FileServer, tmp_path: Path) -> None:
    files.files["/model.gguf"] = b"x" * MIB
    out, problem = start(f"{files.url}/model.gguf", tmp_path, limit=200_000).communicate(timeout=30)
    assert out == ""
    assert "the disk is full" in problem
    assert "set ENGINE_CACHE to another disk" in problem


def test_what_another_process_uses_is_not_evicted(files: FileServer, tmp_path: Path) -> None:
    files.files["/model.gguf"] = b"x" * 1000
    process = start(f"{files.url}/model.gguf", tmp_path, hold=True)
    assert process.stdout is not None
    path = Path(process.stdout.readline().strip())
    assert Cache(tmp_path).prune(max_bytes=0) == []
    assert path.exists()
    process.communicate("\n", timeout=10)
    assert len(Cache(tmp_path).prune(max_bytes=0)) == 1
    assert not path.exists()
