"""What the general recipe can't know about a model type, as data: one table for each family of models."""

from __future__ import annotations

from engine.matrix.overrides.audio import AUDIO
from engine.matrix.overrides.checkpoints import CHECKPOINTS
from engine.matrix.overrides.multimodal import MULTIMODAL
from engine.matrix.overrides.override import Override
from engine.matrix.overrides.series import SERIES
from engine.matrix.overrides.text import TEXT
from engine.matrix.overrides.vision import VISION

OVERRIDES: dict[str, Override] = {**TEXT, **VISION, **AUDIO, **MULTIMODAL, **SERIES, **CHECKPOINTS}
"""By the name of the row, which is the model type but for shapes."""

__all__ = ["OVERRIDES", "Override"]
