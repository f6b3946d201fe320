"""MLServer, a KServe v2 server, over a model of ours. It is no dependency of the tests, for it pins half of what it
needs: install it into an environment of its own and put that environment's `mlserver` on the PATH."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers.processes import free_ports, serving

_FOLDER = Path(__file__).parent / "mlserver_texts"


@contextmanager
def mlserver() -> Iterator[str]:
    """Its address. Skips the test where MLServer is not installed."""
    program = shutil.which("mlserver")
    if program is None:
        pytest.skip("no mlserver on the PATH (PyPI: mlserver==1.7.1)")
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
    with serving([program, "start", str(_FOLDER)], settings, [f"{url}/v2/models/texts/ready"]):
        yield url
