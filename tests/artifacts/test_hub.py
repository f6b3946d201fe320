"""The hub's source against a real server that speaks the hub's API, each in a process of its own.

huggingface_hub reads its settings when it is imported, so every case runs in a fresh interpreter.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.slow

COMMIT = "a" * 40
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": b"weights" * 100,
    "1_Pooling/config.json": b"{}",
    "README.md": b"not fetched",
}


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's HTTP API that fetching a repository uses."""

    requests: list[str]

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        self._serve(body=True)

    def log_message(self, *_: object) -> None:
        """Tests read what came, not the log."""

    def _serve(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.requests.append(path)
        if path.startswith("/api/models/team/gated"):
            self._reply(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        elif path.startswith("/api/models/team/model") and "/tree/" in path:
            rows = [{"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in FILES.items()]
            self._reply(200, json.dumps(rows).encode(), {"Content-Type": "application/json"}, body)
        elif path.startswith("/api/models/team/model"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in FILES.items()]
            info = {"id": "team/model", "modelId": "team/model", "sha": COMMIT, "siblings": siblings}
            self._reply(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, body)
        elif path.startswith(f"/team/model/resolve/{COMMIT}/"):
            data = FILES[path.removeprefix(f"/team/model/resolve/{COMMIT}/")]
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self._reply(200, data, headers, body)
        else:
            self._reply(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    def _reply(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """The server's URL and the paths it was asked for."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Hub,), {"requests": asked}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(home: Path, endpoint: str, repo: str = "team/model", **environment: str) -> subprocess.CompletedProcess[str]:
    """Fetches in a process of its own; prints the folder, or fails with the SetupError."""
    code = (
        "import sys\nfrom engine.artifacts.resolve import fetch\nfrom engine.schemas.model import ModelSpec\n"
        "spec = {'name': 'm', 'sources': [{'kind': 'hub', 'repo': sys.argv[1]}]}\n"
        "print(fetch(ModelSpec.model_validate(spec), ('safetensors',), notify=print).path)\n"
    )
    wanted = {
        **os.environ,
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        **environment,
    }
    command = [sys.executable, "-c", code, repo]
    root = Path(__file__).parents[2]
    return subprocess.run(command, cwd=root, env=wanted, capture_output=True, text=True, check=False, timeout=60)


def test_a_repository_is_fetched_without_what_was_not_asked_for(tmp_path: Path, hub: tuple[str, list[str]]) -> None:
    done = fetch(tmp_path, hub[0])
    assert done.returncode == 0, done.stderr
    said, folder = done.stdout.splitlines()
    assert said == "downloading hub team/model@main from the hub"
    found = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())
    assert found == ["1_Pooling/config.json", "config.json", "model.safetensors"]
    assert "%" not in done.stderr


def test_what_is_cached_is_used_without_asking_the_hub(tmp_path: Path, hub: tuple[str, list[str]]) -> None:
    first = fetch(tmp_path, hub[0])
    hub[1].clear()
    again = fetch(tmp_path, hub[0])
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    assert hub[1] == []


def test_a_download_that_was_cut_is_finished(tmp_path: Path, hub: tuple[str, list[str]]) -> None:
    folder = Path(fetch(tmp_path, hub[0]).stdout.splitlines()[-1])
    (folder / "model.safetensors").unlink()
    assert fetch(tmp_path, hub[0]).returncode == 0
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_offline_is_said_when_nothing_is_cached(tmp_path: Path) -> None:
    done = fetch(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in done.stderr


def test_an_unreachable_hub_fails_fast(tmp_path: Path) -> None:
    started = time.monotonic()
    done = fetch(tmp_path, "http://127.0.0.1:9")
    assert "the hub (http://127.0.0.1:9) can't be reached" in done.stderr
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("repo", "reason"), [("team/none", "no such repository"), ("team/gated", "gated"), ("not a name", "not a repo")]
)
def test_a_refusal_is_told_with_its_reason(tmp_path: Path, hub: tuple[str, list[str]], repo: str, reason: str) -> None:
    done = fetch(tmp_path, hub[0], repo)
    assert done.returncode != 0
    assert reason in done.stderr
