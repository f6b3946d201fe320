"""The layout of a model of diffusers: a folder a part, and `model_index.json`, which lists them as [library, class]."""

from __future__ import annotations

import json
from pathlib import Path

INDEX = "model_index.json"
COMPUTING = ("text_encoder", "text_encoder_2", "text_encoder_3", "unet", "transformer")
"""Parts that are computed with, besides `vae`, which only gives its decoder."""
UNWANTED = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of a checkpoint that no picture is made with."""


def listed(folder: Path) -> frozenset[str]:
    """The names of the parts that the index lists with a class. Raises OSError or ValueError."""
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return frozenset(name for name, value in index.items() if isinstance(value, list) and all(value))


def with_weights(folder: Path) -> list[Path]:
    """The folders of the listed parts that have weights and are loaded, whether they are there or not."""
    names = listed(folder)
    return [folder / name for name in (*COMPUTING, "vae") if name in names]
