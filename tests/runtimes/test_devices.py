"""Which hardware is chosen here, and what is said when there is none."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from engine.core.errors import SetupError
from engine.runtimes import devices
from engine.schemas.hardware import AutoHardwareSpec, CpuHardwareSpec, CudaHardwareSpec, OpenVinoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.sources import FileSourceSpec


def without_gpu() -> bool:
    return devices._driver_gpus() == 0


needs_openvino = pytest.mark.skipif(not devices.installed("openvino_genai"), reason="openvino is not installed")
needs_torch = pytest.mark.skipif(not devices.installed("torch"), reason="torch is not installed")


@needs_openvino
@pytest.mark.skipif(not without_gpu(), reason="this machine has a GPU")
def test_auto_is_openvino_without_a_gpu_and_keeps_the_common_settings() -> None:
    found = devices.resolve(AutoHardwareSpec(kind="auto", threads=1, max_sequences=4))
    assert found == OpenVinoHardwareSpec(kind="openvino", threads=1, max_sequences=4)


@needs_openvino
@needs_torch
@pytest.mark.skipif(not without_gpu(), reason="this machine has a GPU")
def test_auto_takes_what_can_read_the_models_files() -> None:
    source = FileSourceSpec(kind="file", path="somewhere", format="safetensors")
    model = ModelSpec(name="m", tasks=("chat",), sources=(source,))
    assert devices.resolve(AutoHardwareSpec(kind="auto"), model) == CpuHardwareSpec(kind="cpu")


@needs_torch
@pytest.mark.skipif(not without_gpu(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_names_the_next_step() -> None:
    with pytest.raises(SetupError, match=r"^hardware: cuda .*Next: .*hardware=cpu"):
        devices.resolve(CudaHardwareSpec(kind="cuda"))


@needs_openvino
@pytest.mark.slow
def test_an_unknown_openvino_device_is_refused_with_those_found() -> None:
    with pytest.raises(SetupError, match=r"hardware\.device: .*'NPU7'.*CPU"):
        devices.resolve(OpenVinoHardwareSpec(kind="openvino", device="NPU7"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hardware", "expected"),
    [
        ("AutoHardwareSpec(kind='auto')", 'pip install "ipfs-accelerate[openvino]"'),
        ("OpenVinoHardwareSpec(kind='openvino')", 'pip install "ipfs-accelerate[openvino]"'),
        ("CpuHardwareSpec(kind='cpu')", 'pip install "ipfs-accelerate[local]"'),
    ],
)
def test_without_a_runtime_the_extra_is_named(tmp_path: Path, hardware: str, expected: str) -> None:
    """In an interpreter that sees every installed package but the runtimes', as after the base install."""
    for source in Path(sysconfig.get_path("purelib")).iterdir():
        if not source.name.startswith(("torch", "openvino", "transformers")):
            (tmp_path / source.name).symlink_to(source)
    code = f"from engine.runtimes import devices\nfrom engine.schemas.hardware import *\ndevices.resolve({hardware})"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "SetupError: hardware: " in done.stderr
    assert expected in done.stderr


@pytest.mark.slow
def test_asking_does_not_import_torch() -> None:
    code = (
        "import sys\nfrom engine.runtimes import devices\nfrom engine.schemas.hardware import *\n"
        "devices.resolve(OpenVinoHardwareSpec(kind='openvino'))\n"
        "devices.resolve(CpuHardwareSpec(kind='cpu'))\n"
        "assert not {'torch', 'openvino', 'transformers'} & set(sys.modules)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
