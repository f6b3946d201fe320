"""Runs contenders in turn and prints their medians and ratios. A contender is a process that answers rounds.

A contender's script calls `serve(measure)`: for each line on its standard input it measures once and prints a figure.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import venv
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

PEERS = Path(__file__).parent / ".peers"


class Contender:
    """A process that measures on request."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.figures: list[float] = []
        self.extra: dict[str, object] = {}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()  # ready, and warm

    def measure(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        answer = self._read()
        self.figures.append(float(answer.pop("figure")))  # type: ignore[arg-type]
        self.extra |= answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    @property
    def median(self) -> float:
        return statistics.median(self.figures)

    def _read(self) -> dict[str, object]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                found: dict[str, object] = json.loads(line)
                return found
        raise SystemExit(f"{self.name} ended with exit code {self._process.wait()}")


def serve(measure: Callable[[], dict[str, object] | float]) -> None:
    """The contender's side: one warm-up, then a measurement for each line read."""
    measure()
    print("{}", flush=True)
    for _ in sys.stdin:
        found = measure()
        print(json.dumps(found if isinstance(found, dict) else {"figure": found}), flush=True)


def contest(contenders: dict[str, list[str]], rounds: int = 7) -> dict[str, Contender]:
    """Starts every contender, measures them in turn, `rounds` times, and ends them."""
    running = {name: Contender(name, command) for name, command in contenders.items()}
    for _ in range(rounds):
        for contender in running.values():
            contender.measure()
    for contender in running.values():
        contender.close()
    return running


def table(results: dict[str, Contender], unit: str, base: str) -> str:
    """Returns Markdown: median, spread, and the ratio to `base` of the medians."""
    lines = [f"| contender | {unit}, median (min–max) | × {base} |", "|---|--:|--:|"]
    for name, contender in results.items():
        low, high = min(contender.figures), max(contender.figures)
        ratio = contender.median / results[base].median
        lines.append(f"| {name} | {contender.median:,.1f} ({low:,.1f}–{high:,.1f}) | {ratio:.2f} |")
    return "\n".join(lines)


def has_nncf() -> bool:
    """Returns True if weights can be quantized for OpenVINO; else prints that such contenders are left out."""
    found = importlib.util.find_spec("nncf") is not None
    if not found:
        print("left out: the contenders with 8-bit weights, for the package nncf is not installed", file=sys.stderr)
    return found


def machine(*packages: str) -> str:
    """Returns one line: cores, Python, and the versions of the contenders."""
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in packages)
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; {versions}"


def peer_python(*packages: str) -> str:
    """Returns a Python that has the peers, on top of this one's packages. Installed once, below benchmarks/.peers."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        venv.create(PEERS, with_pip=True)
        (site,) = PEERS.glob("lib/python*/site-packages")
        here = next(path for path in sys.path if path.endswith("site-packages"))
        (site / "here.pth").write_text(here + "\n")
    probe = [
        str(python),
        "-c",
        "import sys; from importlib.metadata import version; [version(p) for p in sys.argv[1:]]",
    ]
    if subprocess.run([*probe, *packages], capture_output=True).returncode != 0:
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    return str(python)
