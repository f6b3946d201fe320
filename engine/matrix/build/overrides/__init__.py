"""Facts of model types that the general recipe can't know, as data: one table for each family of models."""

from __future__ import annotations

from engine.matrix.build.overrides.audio import AUDIO
from engine.matrix.build.overrides.checkpoints import CHECKPOINTS
from engine.matrix.build.overrides.multimodal import MULTIMODAL
from engine.matrix.build.overrides.override import Override
from engine.matrix.build.overrides.series import SERIES
from engine.matrix.build.overrides.text import TEXT
from engine.matrix.build.overrides.vision import VISION

OVERRIDES: dict[str, Override] = {**TEXT, **VISION, **AUDIO, **MULTIMODAL, **SERIES, **CHECKPOINTS}
"""Name of the row (the model type, except for shapes) → its deviation."""

__all__ = ["OVERRIDES", "Override"]
