"""Group `hardware`: where in-process work runs."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from engine.schemas.base import Spec
from engine.schemas.plugins import open_kinds, own_kinds


class CommonHardwareSpec(Spec):
    """Knobs that every hardware has."""

    threads: int | None = Field(None, ge=1)
    """CPU threads for one model; null: the machine's cores."""
    max_sequences: int = Field(32, ge=1)
    """Generations that run together at most (continuous batching or a static batch)."""
    memory_limit_gib: float | None = Field(None, gt=0)
    """Memory of the device that the model may take, in GiB; null: what is free. A model that can't fit is refused."""
    replicas: int = Field(1, ge=1)
    """Copies of the model; each request goes to the one that has the least to do. On CUDA: one a GPU, from `device`."""


class AutoHardwareSpec(CommonHardwareSpec):
    """The best there is: CUDA, else OpenVINO, else torch on the CPU."""

    kind: Literal["auto"]


class CpuHardwareSpec(CommonHardwareSpec):
    """torch on the CPU."""

    kind: Literal["cpu"]
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 for encoders on CPUs that compute it natively, else float32. float16 is ~100 times slower here."""
    quantization: Literal["none", "int8_dynamic", "int8", "int4"] = "none"
    """int8_dynamic: torch's own, weights and activations of linear layers. int8, int4: torchao, weights only."""
    compile: bool = False
    """Compile the model with torch.compile when it is first called; needs a C++ compiler. Slow to start."""


class CudaHardwareSpec(CommonHardwareSpec):
    """torch on NVIDIA GPUs, or AMD GPUs with torch's ROCm build."""

    kind: Literal["cuda"]
    device: int = Field(0, ge=0)
    """Index of the GPU; without effect on a model that `device_map` spreads."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: bfloat16 where the GPU has it, else float16."""
    quantization: Literal["none", "int8", "int4", "bnb_int8", "bnb_int4"] = "none"
    """int8, int4: torchao, weights only. bnb_int8, bnb_int4: bitsandbytes."""
    compile: bool = False
    """Compile the model with torch.compile when it is first called. Slow to start."""
    device_map: Literal["none", "auto", "balanced", "sequential"] | dict[str, int | Literal["cpu"]] = "none"
    """none: one GPU. balanced (auto is the same): layers over all GPUs, about the same on each. sequential: fills one
    GPU after the other. Or each module's GPU, such as {model.embed_tokens: 0, model.layers: 1}."""
    max_memory_gib: dict[int | Literal["cpu"], float] = {}
    """Memory for the model's weights on each GPU (and the CPU), in GiB, for `device_map`; empty: what is free."""
    tensor_parallel: bool = False
    """Cut each layer over the processes that `torchrun` started, one a GPU, by transformers' own plan for the model."""
    continuous_batching: bool = True
    """Generations join and leave between steps, by transformers' manager, where it can run the model; else, and with
    false, static batches."""
    kv_cache_gib: float | None = Field(None, gt=0)
    """Memory for the KV caches of continuous batching, in GiB, half for greedy and half for sampled requests; null:
    what is free."""

    @model_validator(mode="after")
    def _one_way_to_spread(self) -> Self:
        if self.tensor_parallel and self.device_map != "none":
            raise ValueError("tensor_parallel cuts layers and device_map spreads them; choose one")
        if self.replicas > 1 and (self.tensor_parallel or self.device_map != "none"):
            raise ValueError("replicas take one GPU each; choose them, or a model that is spread over several")
        if self.max_memory_gib and self.device_map in ("none",):
            raise ValueError("max_memory_gib is for device_map; set device_map=balanced, or memory_limit_gib")
        return self


class MpsHardwareSpec(CommonHardwareSpec):
    """torch on the GPU of an Apple machine."""

    kind: Literal["mps"]
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """auto: float16."""


class OpenVinoHardwareSpec(CommonHardwareSpec):
    """OpenVINO on CPU, GPU or NPU."""

    kind: Literal["openvino"]
    device: str = "CPU"
    """An OpenVINO device name: CPU, GPU, GPU.1, NPU, or several: AUTO, HETERO:GPU,CPU."""
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    """Arithmetic, and of generators the KV cache's type as well; auto: what the device computes fastest, and for
    continuous batching a KV cache of 8 bits."""
    quantization: Literal["none", "int8", "int4", "int8_full"] = "none"
    """int8, int4: weights only, compressed by NNCF, of models from safetensors. int8_full: activations too, of models
    that do not generate; measured with texts (embeddings) or with the first batch."""
    calibration_texts: str | None = None
    """File with a text on each line that int8_full of embeddings measures with; null: 64 short sentences of ours."""
    kv_cache_gib: float = Field(1.0, gt=0)
    """Memory for the KV cache of continuous batching, in GiB."""
    gguf_weights: Literal["as_is", "exact"] = "as_is"
    """as_is: what OpenVINO GenAI makes of a GGUF file; it rounds the zero points of Q4_1 and Q4_K weights. exact: such
    weights as 8-bit with the file's own values, twice the memory."""
    prefix_caching: bool = True
    """Reuse the KV cache of a repeated prefix. Turn off when measuring."""


_Own = AutoHardwareSpec | CpuHardwareSpec | CudaHardwareSpec | MpsHardwareSpec | OpenVinoHardwareSpec
HardwareSpec = Annotated[
    Annotated[_Own, Field(discriminator="kind")], *open_kinds("runtimes", own_kinds(*get_args(_Own)))
]
"""A plug-in of the port `runtimes` adds a kind, whose spec extends CommonHardwareSpec."""
