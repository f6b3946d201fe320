"""`engine schema [group]`: JSON Schemas for editors, and for people who want to know every knob."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from engine.cli.command import Command
from engine.core.errors import ConfigError, nearest
from engine.schemas import RunSpec
from engine.schemas.base import Spec
from engine.schemas.hardware import HardwareSpec
from engine.schemas.media import MediaSpec
from engine.schemas.model import ModelSpec
from engine.schemas.output import OutputSpec
from engine.schemas.policy import PolicySpec
from engine.schemas.prices import PriceListSpec
from engine.schemas.provider import ProviderSpec
from engine.schemas.simulated import FaultScheduleSpec
from engine.schemas.storage import StorageSpec
from engine.schemas.telemetry import TelemetrySpec
from engine.schemas.workload import WorkloadSpec

GROUPS: dict[str, Any] = {
    "run": RunSpec,
    "provider": ProviderSpec,
    "provider/faults": FaultScheduleSpec,
    "prices": PriceListSpec,
    "hardware": HardwareSpec,
    "model": ModelSpec,
    "policy": PolicySpec,
    "workload": WorkloadSpec,
    "media": MediaSpec,
    "output": OutputSpec,
    "storage": StorageSpec,
    "telemetry": TelemetrySpec,
    **{f"policy/{name}": field.annotation for name, field in PolicySpec.model_fields.items()},
}


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--export", metavar="DIR", help="write the schema of every group into this folder")


COMMAND = Command(
    summary="print the JSON Schema of a group's option files, or of the whole run",
    words="[GROUP]",
    flags=_flags,
    most=1,
    examples=("schema provider", "schema policy/retry", "schema --export schemas"),
    values=lambda: [*GROUPS],
)


def main(arguments: argparse.Namespace) -> int:
    if arguments.export:
        written = export(Path(arguments.export))
        print("\n".join(str(path) for path in written))
        return 0
    group = arguments.words[0] if arguments.words else "run"
    if group not in GROUPS:
        raise ConfigError(f"schema {group}: no such group; {nearest(group, GROUPS)}")
    print(render(group), end="")
    return 0


def render(group: str) -> str:
    """The schema of a group's option files. Hydra's own keys are allowed beside the spec's."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"engine {group}",
        **TypeAdapter(GROUPS[group]).json_schema(),
    }
    documented = {cls.__name__: _texts(cls) for cls in _specs(Spec)}
    for name, spec in [(schema["title"], schema), *schema.get("$defs", {}).items()]:
        if "properties" in spec:
            for knob, text in documented.get(name, {}).items():
                spec["properties"][knob]["description"] = text
            # An option file may compose others, need not say what a default says, and may leave `???` open.
            spec["properties"].setdefault("defaults", {"type": "array", "description": "Hydra's defaults list"})
            spec["required"] = [name for name in spec.get("required", []) if name == "kind"]
            if group == "run":
                spec["properties"].setdefault("hydra", {"type": "object"})
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _specs(cls: type[Spec]) -> list[type[Spec]]:
    below = [found for child in cls.__subclasses__() for found in _specs(child)]
    return [*cls.__subclasses__(), *below]


def _texts(cls: type[Spec]) -> dict[str, str]:
    """The text under each field. Read here and not by pydantic, which would read it at every start."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__[: cls.__mro__.index(Spec)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in pairwise(body.body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(field.target, ast.Name):
                texts[field.target.id] = " ".join(ast.literal_eval(below.value).split())
    return texts


def export(folder: Path) -> list[Path]:
    """Writes the schema of every group below `folder`."""
    written = []
    for group in GROUPS:
        path = folder / f"{group}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(group), encoding="utf-8")
        written.append(path)
    return written
