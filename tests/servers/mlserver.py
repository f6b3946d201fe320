"""MLServer, a KServe v2 server, over models of ours. It is no dependency of the tests: `make test-servers` installs it
into an environment of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.environments import MLSERVER
from tests.servers.processes import free_ports, serving

_FOLDER = Path(__file__).parent / "mlserver_texts"


@dataclass(frozen=True)
class Addresses:
    """Of one server."""

    rest: str
    grpc: str


@contextmanager
def mlserver() -> Iterator[Addresses]:
    """Its addresses. Skips the test where MLServer is not installed."""
    program = shutil.which("mlserver") or MLSERVER.program("mlserver")
    if program is None:
        pytest.skip("MLServer is not installed; make test-servers")
    http, grpc, metrics = free_ports(3)
    settings = {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(http),
        "MLSERVER_GRPC_PORT": str(grpc),
        "MLSERVER_METRICS_PORT": str(metrics),
        "MLSERVER_PARALLEL_WORKERS": "0",
        "PYTHONPATH": str(_FOLDER),
    }
    url = f"http://127.0.0.1:{http}"
    with serving([program, "start", str(_FOLDER)], settings, [f"{url}/v2/models/{name}/ready" for name in _MODELS]):
        yield Addresses(url, f"http://127.0.0.1:{grpc}")


_MODELS = ("texts", "columns", "sums")
