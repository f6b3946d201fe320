"""manifest.json: the spec, software and workload of a run, and its progress. Its status is written last."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

PACKAGES = {
    "aiohttp": "aiohttp",
    "backoff": "python-backoff",
    "gguf": "gguf",
    "httpx": "httpx",
    "huggingface_hub": "huggingface-hub",
    "hydra": "hydra-core",
    "msgspec": "msgspec",
    "numpy": "numpy",
    "openvino": "openvino",
    "openvino_genai": "openvino-genai",
    "openvino_tokenizers": "openvino-tokenizers",
    "pyarrow": "pyarrow",
    "pydantic": "pydantic",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "transformers": "transformers",
}
"""Module → distribution that may affect an answer. A manifest lists those that the run has imported."""


class ConfigSource(msgspec.Struct, kw_only=True):
    """A folder that options came from."""

    path: str
    origin: str = ""
    """The reason that it is on the search path."""
    commit: str | None = None
    """Its git commit; None: not a checkout."""
    dirty: bool | None = None
    """It has uncommitted changes; None: not a checkout."""


class Provenance(msgspec.Struct, kw_only=True):
    """Facts about a run that only the caller knows."""

    overrides: list[str] = []
    configs: list[ConfigSource] = []
    targets: list[str] = []
    """Names of the engine's targets, with the hardware that was found."""


class Session(msgspec.Struct, kw_only=True):
    """One process's part in a run. Times are UTC, ISO 8601."""

    started: str
    finished: str | None = None
    """None: running, or killed."""
    wall_s: float | None = None
    """Seconds from the first row read to the last one recorded; in virtual time, virtual ones."""
    real_s: float | None = None
    """In virtual time: the real seconds, the report included."""
    held_back: int = 0
    """Rows that could not start at their own time, because the window was full."""
    held_back_s: float = 0.0
    """The longest such delay, in seconds."""
    recorded_before: int = 0
    """Rows that earlier sessions had recorded."""
    may_repeat: int = 0
    """Calls that earlier sessions may have made without a record, at most."""


class Manifest(msgspec.Struct, kw_only=True):
    """The whole file. Readers ignore fields that they do not know."""

    run: str
    """The directory's name."""
    status: str = "running"
    """running, interrupted, stalled, spent, failed or finished."""
    reason: str | None = None
    """The reason for interrupted, stalled, spent or failed."""
    started: str
    finished: str | None = None
    wall_s: float = 0.0
    """Seconds of all sessions."""
    time: str = "real"
    """virtual: durations and times within the run are those of the simulation; `started` and `finished` are not."""
    folder: str = ""
    """The folder in which the command was given; relative paths of the spec start there."""
    rows: int | None = None
    """Rows of the workload; None: not known yet."""
    ok: int = 0
    failed: int = 0
    targets: list[str] = []
    workload: str = ""
    source: dict[str, Any] | None = None
    """The workload's fingerprint; None: it can't be read twice."""
    spec_fingerprint: str = ""
    spec_digest: str = ""
    """SHA-256 of spec.yaml as it was written."""
    window: int = 0
    """Rows between being read and being durable, at most."""
    overrides: list[str] = []
    configs: list[ConfigSource] = []
    engine_version: str = ""
    python: str = ""
    platform: str = ""
    packages: dict[str, str] = {}
    sessions: list[Session] = []

    def as_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    def record_software(self) -> None:
        """Records the versions of the packages imported so far; call it again at the end."""
        self.engine_version = _version("ipfs-accelerate") or "from source"
        self.python = platform.python_version()
        self.platform = f"{platform.system()} {platform.machine()}"
        for module, distribution in PACKAGES.items():
            version = _version(distribution) if module in sys.modules else None
            if version is not None:
                self.packages[distribution] = version


def read_manifest(content: bytes) -> Manifest:
    """Raises msgspec.DecodeError."""
    return msgspec.json.decode(content, type=Manifest)


def iso_utc(wall_s: float) -> str:
    """A wall-clock time, in seconds since 1970, as ISO 8601 in UTC."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
