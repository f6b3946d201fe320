"""Environments of their own for the third-party servers that tests run, because these pin half of what they need.

    python tests/servers/environments.py          # or: make test-servers

Installs what is missing, with the versions of the lock files beside this one, below ENGINE_TEST_SERVERS (default:
~/.cache/ipfs-accelerate/test-servers). Afterwards the tests that need such a server run; without it they are skipped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Environment:
    """One virtual environment."""

    name: str
    requirement: str
    lock: str
    """Its exact versions; a file beside this one."""
    below: tuple[int, int] = (4, 0)
    """The first Python that the package does not take."""

    @property
    def folder(self) -> Path:
        """Named after what is in it, so that a new lock makes a new one."""
        content = f"{sys.version_info[:2]}{self.requirement}".encode() + (HERE / self.lock).read_bytes()
        return _home() / f"{self.name}-{hashlib.sha256(content).hexdigest()[:12]}"

    @property
    def ready(self) -> bool:
        return (self.folder / "complete").exists()

    def program(self, name: str) -> str | None:
        """The path of one of its programs; None while it is not installed."""
        return str(self.folder / "bin" / name) if self.ready else None


MLSERVER = Environment("mlserver", "mlserver==1.7.1", "mlserver.lock.txt", below=(3, 13))
OPEA = Environment("opea", "opea-comps==1.5", "opea_comps.lock.txt")
_INSTALL = 'python -m venv "$1" && "$1/bin/python" -m pip install -q --disable-pip-version-check -c "$2" "$3"'


def _home() -> Path:
    said = os.environ.get("ENGINE_TEST_SERVERS")
    return Path(said).expanduser() if said else Path.home() / ".cache" / "ipfs-accelerate" / "test-servers"


def main() -> int:
    """Exit code 0 when all that this Python can have are there."""
    missing = [each for each in (MLSERVER, OPEA) if not each.ready and sys.version_info < each.below]
    running = []
    for each in missing:
        shutil.rmtree(each.folder, ignore_errors=True)
        command = [_INSTALL.replace("python -m venv", f'"{sys.executable}" -m venv')]
        arguments = ["bash", "-c", *command, "install", str(each.folder), str(HERE / each.lock), each.requirement]
        running.append((each, subprocess.Popen(arguments)))
    failed = False
    for each, process in running:
        if process.wait() == 0:
            (each.folder / "complete").touch()
        else:
            failed = True
    for each in (MLSERVER, OPEA):
        where = each.folder if each.ready else "not here" if sys.version_info < each.below else "not for this Python"
        print(f"{each.requirement}: {where}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
