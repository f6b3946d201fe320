"""The memory that a model of diffusers will take: its parts, and the decoder that turns latents into pixels.

The decoder is the widest of all forward passes. Its last block works at the picture's full size: the input and what its
first residual block keeps as well have the channels of the second level, the output those of the first (diffusers'
`UpDecoderBlock2D`). Measured with Stable Diffusion's decoder on a CPU in float32: 1,010 MiB for 512 × 512 pixels, where
this says 896.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from engine.artifacts import diffusers, settings

_KEPT_AT_ONCE = 3
"""Tensors of full size with the channels of the second level that exist at once."""
_OWN_SIDE = 64
"""Side of the latents, if the config has none."""


def weight_files(folder: Path) -> list[Path]:
    """Returns the safetensors of the parts that are loaded."""
    return [file for part in diffusers.with_weights(folder) for file in sorted(part.glob("*.safetensors"))]


def activation_bytes(folder: Path, item_bytes: float) -> int:
    """Estimates the bytes of one image in the model's own size; 0 if the configs of its parts are not known."""
    vae, network = _config(folder / "vae"), _config(folder / "unet") or _config(folder / "transformer")
    channels = vae.get("block_out_channels")
    if not isinstance(channels, list) or not channels:
        return 0
    side = network.get("sample_size") or _OWN_SIDE
    latents = math.prod(side[-2:]) if isinstance(side, list) else side**2
    wide = _KEPT_AT_ONCE * channels[min(1, len(channels) - 1)] + channels[0]
    return math.ceil(float(latents * 4 ** (len(channels) - 1) * wide) * item_bytes)


def _config(folder: Path) -> dict[str, Any]:
    return settings.read_object(folder / "config.json")
