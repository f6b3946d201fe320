"""A signal, such as Ctrl-C, after OpenVINO has freed what it had for signals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtimes.tiny_models import causal

pytest.importorskip("openvino_genai")
torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

GRAPHS = """
import gc, os, signal
import numpy as np
from openvino import Model, opset13
from engine.runtimes.openvino.target import Target

signal.signal(signal.SIGUSR1, lambda *_: None)
compiled = []
for _ in range(3):
    given = opset13.parameter([1, 2], np.float32)
    compiled.append(Target("CPU", "f32").compile(Model([opset13.relu(given)], [given], "small")))
while compiled:
    compiled.pop(0)
    gc.collect()
    os.kill(os.getpid(), signal.SIGUSR1)
print("alive")
"""

GENERATORS = """
import os, signal, sys
from pathlib import Path
from engine.artifacts.resolve import Artifact
from engine.artifacts.cache import Cache
from engine.runtimes.openvino import export
from engine.runtimes.openvino.generation import ContinuousGenerator, open_pipeline
from engine.schemas.hardware import OpenVinoHardwareSpec

signal.signal(signal.SIGUSR1, lambda *_: None)
model, cache = map(Path, sys.argv[1:])
made = export.exported(Artifact(model, "safetensors", "test", cache=Cache(cache)), "none")
os.kill(os.getpid(), signal.SIGUSR1)
for _ in range(2):
    generator = ContinuousGenerator(open_pipeline(str(made.path), OpenVinoHardwareSpec(kind="openvino")), 0)
    generator.check('{"type": "string"}')
    os.kill(os.getpid(), signal.SIGUSR1)
    generator.close()
    os.kill(os.getpid(), signal.SIGUSR1)
print("alive")
"""


def last_words(script: str, *arguments: Path) -> tuple[int, str]:
    """The exit code, and what the process says last on either stream."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, (done.stdout or done.stderr).strip()[-500:]


def test_graphs_that_were_freed_in_the_order_they_came_leave_signals_alone() -> None:
    assert last_words(GRAPHS) == (0, "alive")


def test_generators_that_were_closed_leave_signals_alone(tmp_path: Path) -> None:
    causal(tmp_path / "model", "Llama", num_key_value_heads=2)
    assert last_words(GENERATORS, tmp_path / "model", tmp_path / "cache") == (0, "alive")
