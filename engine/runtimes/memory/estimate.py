"""The memory that a model will take, estimated before it is loaded: weights, KV cache, activations.

Weights: read from the headers of the files (safetensors: 8 bytes of length, then JSON of names, types, offsets; GGUF:
its table of tensors), else from the model that `config.json` describes, built on torch's meta device, which allocates
nothing. KV cache: two tensors a layer of `sequences × KV heads × tokens × head size` (Shazeer 2019, arXiv:1911.02150,
section 2; layers with a sliding window keep no more than the window). Activations: what the widest layer of a forward
pass holds at once, and the logits of the last position.
"""

from __future__ import annotations

import importlib.util
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.artifacts import diffusers, gguf, resolve, settings
from engine.artifacts.resolve import Artifact
from engine.core.errors import SetupError
from engine.runtimes.devices import Concrete
from engine.runtimes.memory import diffusers as memory_pictures
from engine.runtimes.memory import free
from engine.schemas.hardware import CpuHardwareSpec, CudaHardwareSpec, MpsHardwareSpec, OpenVinoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.storage import StorageSpec

GIB = 2**30
_SAFETENSORS_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
DTYPE_BYTES = {"float32": 4.0, "f32": 4.0, "bfloat16": 2.0, "bf16": 2.0, "float16": 2.0, "f16": 2.0}
QUANTIZED_BYTES = {
    "int8_dynamic": 1.0, "int8": 1.0, "int8_full": 1.0, "int4": 0.5 + 4 / 128, "bnb_int8": 1.0,
    "bnb_int4": 0.5 + 4 / 64,
}  # fmt: skip
"""A weight of a linear layer, with the scale and zero point (2 bytes each) of its group of 128 (bitsandbytes: 64)."""
BATCH_TOKENS = 2048
"""Tokens that a forward pass reads at once: the bound of the batches on a CPU."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The sizes of a model's tensors."""

    parameters: int
    linear: int
    """The part of them in matrices, which quantization shrinks. The embedding of words is not among them."""
    stored_bytes: int

    def bytes_as(self, dtype: str | None, quantization: str = "none") -> int:
        """Returns the bytes in memory as `dtype` (None: as stored), with quantized linear layers."""
        if dtype is None and quantization == "none":
            return self.stored_bytes
        each = self.stored_bytes / max(1, self.parameters) if dtype is None else DTYPE_BYTES[dtype]
        packed = QUANTIZED_BYTES.get(quantization, each)
        return math.ceil((self.parameters - self.linear) * each + self.linear * packed)


@dataclass(frozen=True, slots=True)
class Shape:
    """The part of a `config.json` that decides about caches and activations."""

    layers: int
    kv_heads: int
    head_dim: int
    hidden: int
    intermediate: int
    vocabulary: int
    context: int
    windows: tuple[int, ...] = ()
    """Tokens that each layer with a sliding window keeps; the other layers keep all."""
    cross_layers: int = 0
    """Decoder layers that also keep keys and values of the encoder's output."""
    linear_layers: int = 0
    """Layers that keep a state of fixed size instead of keys and values; not counted."""

    def kv_bytes(self, sequences: int, tokens: int, item_bytes: float) -> int:
        """Returns the bytes of the keys and values of `sequences` with `tokens` each."""
        full = max(0, self.layers - len(self.windows) - self.linear_layers)
        kept = full * tokens + sum(min(window, tokens) for window in self.windows) + self.cross_layers * tokens
        return math.ceil(2 * kept * sequences * self.kv_heads * self.head_dim * item_bytes)

    def activation_bytes(self, tokens: int, rows: int, item_bytes: float) -> int:
        """Returns the bytes of one forward pass over `tokens` in `rows`: the residual, queries, keys, values and
        attention's output, or both halves of the gated feed-forward network, whichever is more; and the last logits as
        float32, twice (sampling keeps a copy)."""
        attention = 6 * self.hidden
        network = 2 * self.hidden + 3 * self.intermediate
        return math.ceil(tokens * max(attention, network) * item_bytes + 2 * rows * self.vocabulary * 4)


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate in bytes."""

    weights: int
    kv_sequence: int
    """The KV cache of one sequence of full length."""
    kv_all: int
    """The KV cache of all sequences that may run together, each at full length."""
    activations: int
    parameters: int
    tokens: int
    """Length of a full sequence."""

    @property
    def least(self) -> int:
        """Returns the bytes for a single request of full length: with less the model is useless."""
        return self.weights + self.kv_sequence + self.activations

    @property
    def most(self) -> int:
        return self.weights + self.kv_all + self.activations

    def times(self, replicas: int) -> Estimate:
        """Returns the estimate for several copies."""
        return replace(
            self,
            weights=self.weights * replicas,
            kv_sequence=self.kv_sequence * replicas,
            kv_all=self.kv_all * replicas,
            activations=self.activations * replicas,
        )

    def said(self) -> str:
        """Describes the parts in one line."""
        parts = [f"weights {_size(self.weights)}"]
        if self.kv_sequence:
            whose = f" for one sequence of {self.tokens} tokens" if self.kv_all != self.kv_sequence else ""
            parts.append(f"KV cache {_size(self.kv_sequence)}{whose}")
        return ", ".join([*parts, f"activations about {_size(self.activations)}"])


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"


def weights_of(artifact: Artifact) -> Weights:
    """Reads the headers of the files, not the tensors. Raises SetupError for a damaged file."""
    if artifact.format == "gguf":
        return _gguf_weights(gguf.find(artifact.path))
    if artifact.format == "openvino":
        size = (artifact.path / "openvino_model.bin").stat().st_size
        return Weights(size, 0, size)
    if artifact.path.is_file():  # weights in float32 and little else
        size = artifact.path.stat().st_size
        return Weights(size // 4, 0, size)
    several = (artifact.path / diffusers.INDEX).is_file()
    files = memory_pictures.weight_files(artifact.path) if several else sorted(artifact.path.glob("*.safetensors"))
    if not files:
        size = sum(file.stat().st_size for file in artifact.path.rglob("*") if file.is_file())
        return Weights(size, 0, size)
    parameters = linear = stored = 0
    for file in files:
        for name, tensor in safetensors_header(file).items():
            count = math.prod(tensor["shape"])
            parameters += count
            stored += tensor["data_offsets"][1] - tensor["data_offsets"][0]
            linear += count if _is_linear(name, tensor["shape"]) else 0
    return Weights(parameters, linear, stored)


def safetensors_header(path: Path) -> dict[str, dict[str, Any]]:
    """Returns name → dtype, shape, data_offsets. Format: safetensors' README, "Format". Raises SetupError."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            header: dict[str, dict[str, Any]] = json.loads(file.read(length))
    except (struct.error, ValueError) as error:
        raise SetupError(
            f"model.sources: {path} is not a safetensors file; delete it, so that it is fetched"
        ) from error
    header.pop("__metadata__", None)
    return header


def _is_linear(name: str, shape: list[int]) -> bool:
    return len(shape) == 2 and not any(part in name for part in ("embed", "wte", "wpe", "shared", "lm_head"))


def _gguf_weights(path: Path) -> Weights:
    _, tensors = gguf.read(path)
    parameters = sum(math.prod(tensor.shape) for tensor in tensors)
    linear = sum(math.prod(tensor.shape) for tensor in tensors if len(tensor.shape) == 2 and "embd" not in tensor.name)
    return Weights(parameters, linear, path.stat().st_size)


def config_of(artifact: Artifact) -> dict[str, Any]:
    """Returns config.json, or a GGUF file's metadata under config.json's names; empty if there is neither."""
    if artifact.format == "gguf":
        return _gguf_config(gguf.metadata(gguf.find(artifact.path)))
    return settings.read_object(artifact.path / "config.json")


def _gguf_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    own = metadata.get("general.architecture")
    names = {
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "head_dim": "attention.key_length",
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "max_position_embeddings": "context_length",
        "vocab_size": "vocab_size",
    }
    return {name: metadata[f"{own}.{key}"] for name, key in names.items() if f"{own}.{key}" in metadata}


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """Reads the fields of a config.json, also of a model of several parts (the text's part counts). None if unknown."""
    for part in ("text_config", "decoder", "language_config"):
        if isinstance(config.get(part), Mapping):
            return shape_of(config[part])

    def first(*names: str) -> int:
        return next((int(config[name]) for name in names if isinstance(config.get(name), int)), 0)

    layers = first("num_decoder_layers", "decoder_layers", "num_hidden_layers", "n_layer", "num_layers")
    heads = first("decoder_attention_heads", "num_attention_heads", "n_head", "num_heads")
    hidden = first("hidden_size", "n_embd", "d_model", "dim")
    if not layers or not heads or not hidden:
        return None
    both = bool(config.get("is_encoder_decoder"))
    return Shape(
        layers=layers,
        kv_heads=first("num_key_value_heads", "num_kv_heads") or (1 if config.get("multi_query") else heads),
        head_dim=first("head_dim", "d_kv") or hidden // heads,
        hidden=hidden,
        intermediate=first("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "d_ff") or 4 * hidden,
        vocabulary=first("vocab_size"),
        context=first("max_position_embeddings", "n_positions", "max_target_positions", "n_ctx", "seq_length"),
        windows=_windows(config, layers),
        cross_layers=layers if both else 0,
        linear_layers=sum("linear" in kind or "mamba" in kind for kind in config.get("layer_types") or ()),
    )


def _windows(config: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    window = config.get("sliding_window")
    if not isinstance(window, int) or config.get("use_sliding_window") is False:
        return ()
    kinds = config.get("layer_types")
    return (window,) * (sum(kind == "sliding_attention" for kind in kinds) if kinds else layers)


def estimate(
    weights: Weights,
    shape: Shape | None,
    *,
    dtype: str | None,
    quantization: str,
    sequences: int,
    context: int | None,
    generates: bool,
    kv_cache_bytes: int | None = None,
) -> Estimate:
    """`dtype` None: weights stay as stored, arithmetic is 2 bytes. `kv_cache_bytes`: a cache of fixed size."""
    item = DTYPE_BYTES[dtype] if dtype is not None else 2.0
    tokens = context or (shape.context if shape else 0) or 2048
    one = everything = kv_cache_bytes or 0
    if shape is not None and generates and kv_cache_bytes is None:
        one = shape.kv_bytes(1, tokens, item)
        everything = shape.kv_bytes(sequences, tokens, item)
    if not generates:
        one = everything = 0
    work = shape.activation_bytes(min(tokens, BATCH_TOKENS), sequences, item) if shape else 0
    return Estimate(weights.bytes_as(dtype, quantization), one, everything, work, weights.parameters, tokens)


def weights_of_config(folder: Path, tasks: Sequence[str]) -> Weights:
    """Returns the size of the model in a config.json, built on the meta device. Imports torch.

    Raises SetupError where the config can't be built.
    """
    from engine.runtimes.memory import device_map

    parameters = linear = 0
    for name, tensor in device_map.sketch(folder, device_map.model_class(tasks)).named_parameters():
        parameters += tensor.numel()
        linear += tensor.numel() if _is_linear(name, list(tensor.shape)) else 0
    return Weights(parameters, linear, 4 * parameters)


def at_hand(model: ModelSpec, formats: tuple[str, ...], storage: StorageSpec) -> Artifact | None:
    """Returns the model's files if they are on this machine, or else the folder with its config.json; fetches
    nothing."""
    try:
        return resolve.fetch(model, formats, storage=storage.model_copy(update={"offline": True}))
    except SetupError:
        pass
    if importlib.util.find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    for source in model.sources:
        if source.kind == "hub" and source.format in formats:
            found = try_to_load_from_cache(source.repo, "config.json", revision=source.revision)
            if isinstance(found, str):
                return Artifact(Path(found).parent, source.format, f"hub {source.repo}")
    return None


def of(artifact: Artifact, model: ModelSpec, hardware: Concrete) -> Estimate:
    """Estimates the memory of the model on the hardware, for all its replicas together. Raises SetupError for damaged
    files."""
    bare = artifact.path.is_dir() and not any(artifact.path.rglob("*.safetensors")) and artifact.format == "safetensors"
    weights = weights_of_config(artifact.path, model.tasks) if bare else weights_of(artifact)
    cache = _cache_gib(hardware)
    quantized = "none" if isinstance(hardware, MpsHardwareSpec) else hardware.quantization
    one = estimate(
        weights,
        shape_of(config_of(artifact)),
        dtype=_dtype(hardware),
        quantization=quantized,
        sequences=hardware.max_sequences,
        context=model.context_length,
        generates=bool({"chat", "completion"} & set(model.tasks)),
        kv_cache_bytes=None if cache is None else int(cache * GIB),
    )
    if (artifact.path / diffusers.INDEX).is_file():
        one = _of_pictures(one, artifact.path, hardware)
    return one.times(1 if isinstance(hardware, CudaHardwareSpec) else hardware.replicas)


def _cache_gib(hardware: Concrete) -> float | None:
    """Returns the size of continuous batching's KV cache, if it is fixed."""
    if isinstance(hardware, OpenVinoHardwareSpec):
        return hardware.kv_cache_gib
    if isinstance(hardware, CudaHardwareSpec) and hardware.continuous_batching:
        return hardware.kv_cache_gib
    return None


def _of_pictures(found: Estimate, folder: Path, hardware: Concrete) -> Estimate:
    dtype = _dtype(hardware)
    work = memory_pictures.activation_bytes(folder, DTYPE_BYTES[dtype] if dtype is not None else 4.0)
    # On OpenVINO torch's weights stay next to those of the graphs: other inputs may need another conversion.
    copies = 2 if isinstance(hardware, OpenVinoHardwareSpec) else 1
    return replace(found, weights=found.weights * copies, activations=work)


def check(found: Estimate, hardware: Concrete, name: str) -> None:
    """Raises SetupError with the numbers and the next step if not even one request of full length fits."""
    limit = int(hardware.memory_limit_gib * GIB) if hardware.memory_limit_gib else free.free_bytes(hardware)
    if limit is None or found.least <= limit:
        return
    whose = "hardware.memory_limit_gib allows" if hardware.memory_limit_gib else "this machine has free"
    steps = []
    if not isinstance(hardware, MpsHardwareSpec) and hardware.quantization == "none":
        steps.append("hardware.quantization=int8")
    if found.kv_sequence:
        cache = _cache_gib(hardware)
        shorter = f"model.context_length={max(1, found.tokens // 4)}"
        steps.append(shorter if cache is None else f"hardware.kv_cache_gib={cache / 4:g}")
    if hardware.replicas > 1:
        steps.append("hardware.replicas=1")
    raise SetupError(
        f"hardware: {name} needs at least {found.least / GIB:.2f} GiB ({found.said()}), and {whose} "
        f"{limit / GIB:.2f} GiB. Next: {', '.join(steps) or 'a smaller model'}, or other hardware"
    )


def _dtype(hardware: Concrete) -> str | None:
    """Returns the type that `auto` will choose, without importing torch; None: OpenVINO keeps weights as stored."""
    if isinstance(hardware, OpenVinoHardwareSpec):
        return None
    if isinstance(hardware, CpuHardwareSpec) and hardware.quantization == "int8_dynamic":
        return "float32"
    if hardware.dtype != "auto":
        return hardware.dtype
    if not isinstance(hardware, CpuHardwareSpec):
        return "float16"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "float32"
    return "bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"
