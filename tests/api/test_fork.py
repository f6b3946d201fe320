"""An engine that was made before a fork: every use of it in the child is refused, and says why."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, signal, sys
from engine import Engine, EngineError, Request
request = Request(task="chat", body={"messages": [{"role": "user", "content": "x"}]})
USES = {
    "sync": lambda engine: engine.sync.submit(request),
    "async": lambda engine: asyncio.run(engine.submit(request)),
    "map": lambda engine: list(engine.sync.map([request])),
    "stream": lambda engine: list(engine.sync.stream(request)),
}
with Engine.compose(["provider=simulated"]) as engine:
    if sys.argv[2] == "used":
        engine.sync.submit(request)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            USES[sys.argv[1]](engine)
        except EngineError as error:
            print(error, flush=True)
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    print("child ended" if ended == 0 else "child hung", flush=True)
    print("parent", engine.sync.submit(request).ok, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("use", ["sync", "async", "map", "stream"])
@pytest.mark.parametrize("before", ["used", "fresh"])
def test_an_engine_is_refused_after_a_fork(use: str, before: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, use, before], capture_output=True, text=True, timeout=120, check=False
    )
    assert "make a new engine after the fork" in done.stdout, done.stderr
    assert "child ended" in done.stdout
    assert "parent True" in done.stdout
