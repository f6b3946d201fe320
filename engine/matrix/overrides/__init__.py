"""What the general recipe can't know about a model type, as data: one table for each family of models."""

from __future__ import annotations

from engine.matrix.overrides.override import Override

OVERRIDES: dict[str, Override] = {}
"""By model type."""

__all__ = ["OVERRIDES", "Override"]
