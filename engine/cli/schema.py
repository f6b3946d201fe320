"""`engine schema [group]`: JSON Schemas for editors, and for people who want to know every knob."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from engine.cli.command import Command, config_dir_flag
from engine.cli.names import unknown_name
from engine.core.option_files import conf_dir, option_files
from engine.schemas import RunSpec
from engine.schemas.base import Spec
from engine.schemas.hardware import HardwareSpec
from engine.schemas.media import MediaSpec
from engine.schemas.model import ModelSpec
from engine.schemas.output import OutputSpec
from engine.schemas.plugins import plugin_specs
from engine.schemas.policy import PolicySpec
from engine.schemas.prices import PriceListSpec
from engine.schemas.prompt import PromptSpec
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
    "prompt": PromptSpec,
    "media": MediaSpec,
    "output": OutputSpec,
    "storage": StorageSpec,
    "telemetry": TelemetrySpec,
    **{f"policy/{name}": field.annotation for name, field in PolicySpec.model_fields.items() if name != "stages"},
}


_PORTS = {"provider": "executors", "hardware": "runtimes", "workload": "workloads"}
"""The port whose installed kinds a group's options may have."""


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--export", metavar="DIR", help="write the schema of every group into this folder")
    config_dir_flag(parser)


COMMAND = Command(
    summary="print the JSON Schema of a group's option files, or of the whole run",
    words="[GROUP]",
    flags=_flags,
    examples=("schema provider", "schema policy/retry", "schema --export schemas"),
    values=lambda: [*GROUPS],
)


def main(arguments: argparse.Namespace) -> int:
    folders = [conf_dir(), *([Path(arguments.config_dir)] if arguments.config_dir else [])]
    if arguments.export:
        written = export(Path(arguments.export), folders)
        print("\n".join(str(path) for path in written))
        return 0
    group = arguments.words[0] if arguments.words else "run"
    if group not in GROUPS:
        raise unknown_name(f"schema {group}", "group", GROUPS, "engine schema --help")
    print(render(group, folders), end="")
    return 0


def render(group: str, folders: Sequence[Path] = ()) -> str:
    """Returns the schema of a group's option files; `folders` hold the options that a defaults list may name."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"engine {group}",
        **TypeAdapter(GROUPS[group]).json_schema(),
    }
    blocks = [block for block in (schema, *schema.get("$defs", {}).values()) if "properties" in block]
    documented = {cls.__name__: _texts(cls) for cls in _specs(Spec)}
    for block in blocks:
        for knob, text in documented.get(block["title"], {}).items():
            block["properties"][knob]["description"] = text
        # An option file need not say what a default or its defaults list says, and may leave `???` open.
        block["required"] = [name for name in block.get("required", []) if name == "kind"]
    for knob in [schema, *(knob for block in blocks for knob in block["properties"].values())]:
        _inherit_kind(knob, schema)
    for spec in plugin_specs(_PORTS[group]).values() if group in _PORTS else ():
        installed = TypeAdapter(spec).json_schema()
        schema.setdefault("$defs", {}).update(
            {**installed.pop("$defs", {}), spec.__name__: {**installed, "required": []}}
        )
        schema["anyOf"].append({"$ref": f"#/$defs/{spec.__name__}"})
    kinds = [_of(schema, kind["$ref"]) for kind in schema.get("anyOf", [])]
    if kinds:
        schema |= {"if": {"not": {"required": ["defaults"]}}, "then": {"required": ["kind"]}}
    files = option_files(folders or [conf_dir()])
    if group == "run":
        schema["properties"]["hydra"] = {"type": "object"}
        for part, knob in schema["$defs"]["TargetSpec"]["properties"].items():  # of a fallback
            knob["anyOf"] = [{"enum": _chosen(files[part])}, {"type": "object"}]
            knob["description"] = "An option, or {use: option, …overrides}."
            knob.pop("$ref", None)
    if group != "prices":  # a list of prices is read without Hydra
        schema.setdefault("$defs", {})["DefaultsList"] = _defaults(group, files)
        for file in kinds or [schema]:
            file["properties"]["defaults"] = {"$ref": "#/$defs/DefaultsList"}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _of(schema: dict[str, Any], reference: str) -> dict[str, Any]:
    block: dict[str, Any] = schema["$defs"][reference.rpartition("/")[2]]
    return block


def _inherit_kind(knob: dict[str, Any], schema: dict[str, Any]) -> None:
    """Lets a file or a block whose kind comes from elsewhere say only what differs; items of a list say their kind."""
    if knob.pop("discriminator", None) is None:
        return
    knob["anyOf"] = knob.pop("oneOf")  # without a kind, several may fit
    for kind in knob["anyOf"]:
        _of(schema, kind["$ref"])["required"] = []


def _defaults(group: str, files: Mapping[str, list[str]]) -> dict[str, Any]:
    """Returns the schema of a defaults list: files of this group, and {group: option} of the groups below it."""
    above = "" if group == "run" else f"{group}/"
    path = {"type": "string", "pattern": "[/@]|^(optional|override) "}
    below = {
        name.removeprefix(above): {"anyOf": [{"enum": [*_chosen(names), None]}, path]}
        for name, names in files.items()
        if name.startswith(above)
    }
    named = {"properties": below, "patternProperties": {path["pattern"]: {}}, "additionalProperties": False}
    return {
        "description": "Hydra's defaults list: what this file builds on.",
        "type": "array",
        "items": {"anyOf": [{"enum": [*files.get(group, []), "_self_"]}, path, {"type": "object", **named}]},
    }


def _chosen(names: Sequence[str]) -> list[str]:
    return [name for name in names if not name.startswith("_")]


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


def export(folder: Path, folders: Sequence[Path] = ()) -> list[Path]:
    """Writes the schema of every group below `folder`; `folders` hold the options that a defaults list may name."""
    written = []
    for group in GROUPS:
        path = folder / f"{group}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(group, folders), encoding="utf-8")
        written.append(path)
    return written
