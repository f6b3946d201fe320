"""The layout of a model of diffusers: a folder a part, and `model_index.json`, which lists them as [library, class]."""

from __future__ import annotations

from pathlib import Path

from engine.artifacts import settings

INDEX = "model_index.json"
COMPUTING = ("text_encoder", "text_encoder_2", "text_encoder_3", "unet", "transformer")
"""Parts that compute, next to `vae`, of which only the decoder is used."""
UNWANTED = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of a checkpoint that are not used to make an image."""


def parts(folder: Path) -> dict[str, tuple[str, str]]:
    """Returns the library and the class of each part that the index lists. Raises SetupError."""
    index = settings.read_object(folder / INDEX)
    return {
        name: (value[0], value[1])
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and all(value)
    }


def listed(folder: Path) -> frozenset[str]:
    """Returns the names of the parts that the index lists with a class. Raises SetupError."""
    return frozenset(parts(folder))


def with_weights(folder: Path) -> list[Path]:
    """Returns the folders of the listed parts that have weights and are loaded, present or not."""
    names = listed(folder)
    return [folder / name for name in (*COMPUTING, "vae") if name in names]
