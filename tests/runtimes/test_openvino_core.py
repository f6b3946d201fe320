"""OpenVINO and signals."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("openvino")

SCRIPT = """
import gc, os, signal
import numpy as np
from openvino import Model, opset13
from engine.runtimes.openvino_target import Target

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


def test_a_signal_after_models_were_freed_does_not_end_the_process() -> None:
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr[-500:]
