"""IPFS Accelerate: a declarative, config-driven inference pipeline engine. This is its public API."""

from engine.api.engine import Engine
from engine.core.errors import ConfigError, EngineError, InferenceError, Interrupted, OutputError, SetupError
from engine.core.request import Request, Result
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.core.version import VERSION
from engine.schemas import RunSpec

__version__ = VERSION

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
