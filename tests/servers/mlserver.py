"""MLServer, a KServe v2 server, over a model of ours. It is no dependency of the tests, for it pins half of what it
needs: install it into an environment of its own and put that environment's `mlserver` on the PATH."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

_FOLDER = Path(__file__).parent / "mlserver_texts"
_START_S = 60.0


@contextmanager
def mlserver() -> Iterator[str]:
    """Its address. Skips the test where MLServer is not installed."""
    program = shutil.which("mlserver")
    if program is None:
        pytest.skip("no mlserver on the PATH (PyPI: mlserver==1.7.1)")
    http, grpc, metrics = _free_ports(3)
    settings = {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(http),
        "MLSERVER_GRPC_PORT": str(grpc),
        "MLSERVER_METRICS_PORT": str(metrics),
        "MLSERVER_PARALLEL_WORKERS": "0",
        "PYTHONPATH": str(_FOLDER),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    process = subprocess.Popen(
        [program, "start", str(_FOLDER)],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        url = f"http://127.0.0.1:{http}"
        _await_ready(f"{url}/v2/models/texts/ready", process)
        yield url
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"mlserver ended: {process.communicate()[0][-2000:].decode()}")
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"mlserver was not ready within {_START_S} s")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
