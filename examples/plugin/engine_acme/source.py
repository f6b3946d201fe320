"""A source of model files: `model.sources: [{kind: vault, drawer: a}]` takes them from a folder of drawers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from engine.artifacts.job import Job
from engine.artifacts.resolve import Artifact
from engine.core.errors import SetupError
from engine.schemas.base import Spec


class VaultSourceSpec(Spec):
    """One item of `model.sources`."""

    kind: Literal["vault"]
    drawer: str
    """The folder's name below $ACME_VAULT."""
    format: Literal["gguf", "safetensors"] = "gguf"
    """The layout of the files."""


class VaultSource:
    """Files that are used where they are."""

    spec = VaultSourceSpec

    def __init__(self, spec: VaultSourceSpec) -> None:
        self._spec = spec

    def __str__(self) -> str:
        return f"vault {self._spec.drawer}"

    def fetch(self, job: Job) -> Artifact:
        path = Path(os.environ.get("ACME_VAULT", ".")) / self._spec.drawer
        if not path.exists():
            raise SetupError(f"{path}: got nothing there; expected a drawer. Fix: set ACME_VAULT")
        return Artifact(path.resolve(), self._spec.format, str(self))
