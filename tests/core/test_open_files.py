"""A low limit on open files: raised where that is allowed, else fewer connections, and named when it is reached."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from engine.core import open_files
from engine.executors.services import Services
from engine.schemas.provider import TransportSpec
from engine.transports.transport import can_not_connect


@pytest.mark.parametrize(("limit", "fit"), [(10**9, 1000), (1024, 976), (256, 208), (50, 4), (10, 4)])
def test_connections_fit_the_limit(limit: int, fit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert open_files.connections(1000) == fit


async def test_a_capped_transport_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (128, 128))
    notes: list[str] = []
    services = Services(notify=notes.append)
    services.transport(TransportSpec())
    services.transport(TransportSpec(max_connections=10))
    await services.aclose()
    assert notes == [
        "provider.transport.max_connections is 80 here: this process may have 128 files open: raise that with "
        "`ulimit -n`, or use fewer connections"
    ]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_connection_that_fails_for_it_names_the_limit(number: int) -> None:
    error = can_not_connect("http://127.0.0.1:1", OSError(number, "Too many open files"), "")
    assert "ulimit -n" in error.message
    assert "is the server running" not in error.message


PROGRAM = """
import resource, sys
from engine.cli.main import main
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
code = main(sys.argv[3:])
print("limit", resource.getrlimit(resource.RLIMIT_NOFILE)[0], "code", code)
"""


def run(limits: tuple[int, int], *words: str) -> str:
    command = [sys.executable, "-c", PROGRAM, *map(str, limits), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_command_line_raises_the_soft_limit() -> None:
    assert "limit 700 code 0" in run((64, 700), "--version")


@pytest.mark.slow
def test_a_run_with_few_files_answers_every_row(tmp_path: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "engine", "simulate", "--port", "0", "provider.latency_s=0.05"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = next(word for word in server.stdout.readline().split() if word.startswith("http"))
        (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n' * 300)
        words = [f"provider.base_url={url}/v1", "model=remote", "model.name=m", "workload=jsonl"]
        words += [f"workload.path={tmp_path / 'in.jsonl'}", f"output.dir={tmp_path / 'run'}"]
        said = run((72, 72), "provider=vllm", *words, "policy.queue.concurrency=200")
    finally:
        server.terminate()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
    assert "300 of 300 answered" in said
    assert "max_connections is 24 here" in said
    assert "retries" not in said
