"""Group `hardware`: where in-process work runs."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Spec


class _Hardware(Spec):
    threads: int | None = Field(None, ge=1)
    """CPU threads for one model; null: the machine's cores."""
    max_sequences: int = Field(32, ge=1)
    """Generations that run together at most (continuous batching or a static batch)."""


class AutoHardwareSpec(_Hardware):
    """The best there is: CUDA, else OpenVINO, else torch on the CPU."""

    kind: Literal["auto"]


class CpuHardwareSpec(_Hardware):
    """torch on the CPU."""

    kind: Literal["cpu"]
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 for encoders on CPUs that compute it natively, else float32. float16 is ~100 times slower here."""


class CudaHardwareSpec(_Hardware):
    """torch on an NVIDIA GPU."""

    kind: Literal["cuda"]
    device: int = Field(0, ge=0)
    """Index of the GPU."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 where the GPU has it, else float16."""


class OpenVinoHardwareSpec(_Hardware):
    """OpenVINO on CPU, GPU or NPU."""

    kind: Literal["openvino"]
    device: str = "CPU"
    """An OpenVINO device name: CPU, GPU, GPU.1, NPU."""
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    """Arithmetic of encoders; auto: what the device computes fastest."""
    kv_cache_gib: float = Field(1.0, gt=0)
    """Memory for the KV cache of continuous batching, in GiB."""
    gguf_weights: Literal["as_is", "exact"] = "as_is"
    """as_is: what OpenVINO GenAI makes of a GGUF file; it rounds the zero points of Q4_1 and Q4_K weights. exact: such
    weights as 8-bit with the file's own values, twice the memory."""
    prefix_caching: bool = True
    """Reuse the KV cache of a repeated prefix. Turn off when measuring."""


HardwareSpec = Annotated[
    AutoHardwareSpec | CpuHardwareSpec | CudaHardwareSpec | OpenVinoHardwareSpec, Field(discriminator="kind")
]
