"""IPFS Accelerate: a declarative, config-driven inference pipeline engine. This is its public API."""

from engine.engine import Engine
from engine.errors import (
    ConfigError,
    EngineError,
    InferenceError,
    Interrupted,
    OutputError,
    SetupError,
)
from engine.request import Chunk, Request, Result, Usage
from schemas import RunSpec

__version__ = "0.1.0"

__all__ = [
    "Chunk",
    "ConfigError",
    "Engine",
    "EngineError",
    "InferenceError",
    "Interrupted",
    "OutputError",
    "Request",
    "Result",
    "RunSpec",
    "SetupError",
    "Usage",
]
