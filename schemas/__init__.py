"""The specs: what a user can say, one file a config group. Imports nothing of the engine."""

from engine.schemas.run import RunSpec, TargetSpec

__all__ = ["RunSpec", "TargetSpec"]
