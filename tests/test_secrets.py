"""The canary: a key that a real run uses is found nowhere in what the run leaves or prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Of no shape that a pattern could know: only a value that is never written is never found.
PLAIN_CANARY = "canary0f9b7kq2x"
SHAPED_CANARY = "sk-canary-4e1c99d07ba2468f"
ROWS = ("answer", "refuse", "break", "garble")


class EchoHandler(BaseHTTPRequestHandler):
    """Says the caller's Authorization header back: in answers, in errors, in headers, and in a reply that is none."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        header = self.headers["Authorization"]
        what = asked["messages"][0]["content"]
        if what == "answer":
            message = {"role": "assistant", "content": "The key is safe with me."}
            self._reply(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
        elif what == "refuse":
            self._reply(400, {"error": {"message": f"Incorrect header: {header}", "code": header, "type": header}})
        elif what == "break":
            self._reply(500, {"error": {"message": f"failed with {{'Authorization': '{header}'}}"}})
        else:
            self._reply(200, f"<html>{header}</html>")

    def do_GET(self) -> None:
        self._reply(403, {"error": {"message": f"not you, {self.headers['Authorization']}"}})

    def _reply(self, status: int, body: object) -> None:
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Request-Id", f"req-{self.headers['Authorization']}")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def echo_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), EchoHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def engine(folder: Path, *words: str, key: str = "") -> subprocess.CompletedProcess[bytes]:
    """Runs the command line in `folder`, with `key` in the environment and nothing else that it could find."""
    variables = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    variables |= {"PYTHONPATH": str(ROOT), "HOME": str(folder), "TMPDIR": str(folder), "NO_PROXY": "*"}
    if key:
        variables["OPENAI_API_KEY"] = key
    return subprocess.run(
        [sys.executable, "-m", "engine", *words], cwd=folder, env=variables, capture_output=True, timeout=60
    )


def remote(url: str) -> list[str]:
    """A run of every row, with one short retry, so that the key is on the wire more than once."""
    rows = ["provider=openai", f"provider.base_url={url}", "workload=jsonl", "workload.path=rows.jsonl"]
    return [*rows, "policy.retry.max_retries=1", "policy.retry.initial_delay_s=0", "telemetry.log_level=debug"]


def write_rows(folder: Path) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps({"prompt": word}) + "\n" for word in ROWS))


def holders(folder: Path, text: str) -> list[str]:
    """The files below `folder` whose bytes, or whose name, hold `text`."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if text in path.name or text.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--debug"]], ids=["quiet", "debug"])
@pytest.mark.parametrize("key", [SHAPED_CANARY, PLAIN_CANARY], ids=["shaped", "plain"])
def test_a_key_is_in_nothing_that_a_run_leaves(tmp_path: Path, echo_url: str, key: str, flags: list[str]) -> None:
    write_rows(tmp_path)
    done = engine(tmp_path, *remote(echo_url), *flags, key=key)
    assert done.returncode == 3, done.stderr.decode()
    assert key.encode() not in done.stdout + done.stderr
    assert holders(tmp_path, key) == []
    (run,) = (tmp_path / "outputs").iterdir()
    kinds = [(json.loads(line)["error"] or {}).get("kind") for line in (run / "results.jsonl").open()]
    assert kinds == [None, "invalid_request", "server", "malformed"]


@pytest.mark.slow
def test_a_key_is_in_nothing_that_a_killed_or_resumed_run_leaves(tmp_path: Path, echo_url: str) -> None:
    write_rows(tmp_path)
    assert engine(tmp_path, *remote(echo_url), "workload.limit=2", "output.dir=run", key=PLAIN_CANARY).returncode == 3
    manifest = tmp_path / "run" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"finished"', '"interrupted"', 1))
    done = engine(tmp_path, "runs", "resume", "run", key=PLAIN_CANARY)
    assert done.returncode == 3, done.stderr.decode()
    assert PLAIN_CANARY.encode() not in done.stdout + done.stderr
    assert holders(tmp_path, PLAIN_CANARY) == []


@pytest.mark.slow
@pytest.mark.parametrize("verb", [["plan", "--json", "--debug"], ["plan"], ["check"], ["check", "--debug"]])
def test_a_key_is_not_shown_by_plan_or_check(tmp_path: Path, echo_url: str, verb: list[str]) -> None:
    write_rows(tmp_path)
    done = engine(tmp_path, verb[0], *remote(echo_url), *verb[1:], key=PLAIN_CANARY)
    assert PLAIN_CANARY.encode() not in done.stdout + done.stderr
    assert b"OPENAI_API_KEY" in done.stdout
    assert holders(tmp_path, PLAIN_CANARY) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "override",
    [
        f"provider.api_key={PLAIN_CANARY}",
        f"+provider.credential.token={PLAIN_CANARY}",
        f"provider.headers.Authorization='Bearer {PLAIN_CANARY}'",
        f"provider.base_url=http://user:{PLAIN_CANARY}@127.0.0.1/v1",
        f"provider.default_model={SHAPED_CANARY}",
        f"provider={SHAPED_CANARY}",
        f"model.parameters={{api_key: {PLAIN_CANARY}}}",
        f"provider.headers={{X-Key: [{SHAPED_CANARY}}}",  # not even valid Hydra
    ],
    ids=["api_key", "token", "header", "url", "shape", "option", "nested", "syntax"],
)
def test_a_secret_typed_as_a_value_is_refused_and_not_repeated(tmp_path: Path, override: str) -> None:
    done = engine(tmp_path, "provider=openai", override, "--debug", key="unrelated-key")
    said = done.stdout + done.stderr
    assert done.returncode in (1, 2), said.decode()
    assert PLAIN_CANARY.encode() not in said
    assert SHAPED_CANARY.encode() not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_refusal_of_a_typed_secret_says_where_to_put_it(tmp_path: Path) -> None:
    done = engine(tmp_path, "provider=openai", f"provider.api_key={PLAIN_CANARY}")
    assert done.returncode == 2
    assert b"provider.api_key" in done.stderr
    assert b"provider.credential.env" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_a_secret_in_a_config_repo_is_refused_and_not_repeated(tmp_path: Path) -> None:
    repo = tmp_path / "conf" / "provider"
    repo.mkdir(parents=True)
    (repo / "mine.yaml").write_text(
        f"defaults: [openai]\nname: mine\nheaders: {{Authorization: 'Bearer {PLAIN_CANARY}'}}\n"
    )
    done = engine(tmp_path, "provider=mine", "--config-dir", "conf", "--debug", key="unrelated-key")
    assert done.returncode in (1, 2), done.stderr.decode()
    assert PLAIN_CANARY.encode() not in done.stdout + done.stderr
    assert not (tmp_path / "outputs").exists()
