"""Explains errors of a configuration in the words that the user typed: one line a problem."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from engine.core.errors import ConfigError, nearest
from engine.credentials.masking import Secret, looks_like_secret, mask_secret, mask_shapes
from engine.schemas import RunSpec
from engine.schemas.hardware import HardwareSpec
from engine.schemas.model_parameters import PARAMETER
from engine.schemas.plugins import OpenKinds, plugin_specs, plugins
from engine.schemas.policy import PolicySpec
from engine.schemas.provider import ProviderSpec
from engine.schemas.sources import SourceSpec
from engine.schemas.workload import WorkloadSpec

SECRET_KEYS = re.compile(
    r"(^|[_-])((api|access|secret|private|subscription|auth)[_-]?key|secret|token|password|passwd|authorization|cookie)s?$|-key$",
    re.IGNORECASE,
)
"""Names under which people put a secret's value, knobs and HTTP headers alike."""
SECRET_ENV = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)(_\d+)?$")
_CONTAINED_CHARS = 12
"""A variable's value that is this long is a secret also as a part of another value."""


def unknown_key(key: str, options: Mapping[str, list[str]]) -> str | None:
    """Returns the reason why `key` (dotted, as typed) is not a key of the run spec; None if it is one.

    Unions have the keys of all their kinds. The specs of installed plug-ins are read if ours lack the key.
    """
    problem = _unknown(key, options, installed=False)
    return None if problem is None else _unknown(key, options, installed=True)


def _unknown(key: str, options: Mapping[str, list[str]], installed: bool) -> str | None:
    models: list[type[BaseModel]] = [RunSpec]
    walked: list[str] = []
    for part in key.split("."):
        name = part.partition("[")[0]
        known = _fields(models, installed)
        if name not in known:
            where = ".".join(walked) or "the run"
            names = [".".join([*walked, each]) for each in known]
            if not walked:
                names += [group for group in options if "/" not in group]
            return f"{key}: {where} has no key {part!r}; {nearest('.'.join([*walked, part]), names)}"
        walked.append(part)
        if any(get_origin(field.annotation) in (dict, tuple, list) for field in known[name]):
            return None  # free keys, or a list that pydantic checks
        models = [model for field in known[name] for model in _models_of(field, installed)]
        if not models and len(walked) < len(key.split(".")):
            return f"{key}: {'.'.join(walked)} is a value and has no keys"
    return None


def _fields(models: Iterable[type[BaseModel]], installed: bool) -> dict[str, list[FieldInfo]]:
    """Returns the fields of several models by name, and a policy's stages of installed plug-ins."""
    fields: dict[str, list[FieldInfo]] = {}
    for model in models:
        for name, field in model.model_fields.items():
            fields.setdefault(name, []).append(field)
        if installed and model is PolicySpec:
            for name, spec in plugin_specs("stages").items():
                fields.setdefault(name, []).append(FieldInfo(annotation=spec))
    return fields


def _models_of(field: FieldInfo, installed: bool) -> list[type[BaseModel]]:
    """Returns the models that a field's value may have; with `installed` also those of plug-ins."""
    models = [*_models(field.annotation)]
    if installed:
        ports = (mark.port for mark in field.metadata if isinstance(mark, OpenKinds))
        models += [spec for port in ports for spec in plugin_specs(port).values()]
    return models


def _models_at(path: str, installed: bool = False) -> list[type[BaseModel]]:
    """Returns the models at a dotted path of the run spec."""
    models: list[type[BaseModel]] = [RunSpec]
    for part in path.split(".") if path else ():
        known = _fields(models, installed).get(part.partition("[")[0], ())
        models = [model for field in known for model in _models_of(field, installed)]
    return models


def fields(path: str) -> dict[str, bool]:
    """Returns the keys below a dotted path of the run spec, and whether each has keys itself."""
    known = _fields(_models_at(path, installed=True), installed=True)
    return {name: any(_models_of(field, True) for field in found) for name, found in known.items()}


def choices(path: str) -> list[str]:
    """Returns the values of a dotted key that takes one of a few words, or true and false; empty for another key."""
    parent, _, name = path.rpartition(".")
    known = _fields(_models_at(parent, installed=True), installed=True).get(name, ())
    return sorted({text for field in known for text in _words(field.annotation)})


def _words(annotation: Any) -> Iterable[str]:
    if annotation is bool:
        yield from ("true", "false")
    elif annotation is type(None):
        yield "null"
    elif get_origin(annotation) is Literal:
        yield from (str(value) for value in get_args(annotation))
    elif get_origin(annotation) in (Union, Annotated, UnionType):
        for argument in get_args(annotation):
            yield from _words(argument)


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Union or hasattr(annotation, "__args__"):
        for argument in get_args(annotation):
            yield from _models(argument)


def from_pydantic(
    error: ValidationError,
    written: Callable[[str], str | None] = lambda path: None,
    file: Callable[[str], str | None] = lambda path: None,
) -> list[str]:
    """Returns a line for each problem: the path as an override has it, the value, what is expected, the nearest name.

    `written` returns the text that was written for a path, `file` the config repo's file that has it; None: unknown.
    """
    lines = []
    for item in error.errors(include_url=False):
        path = _dotted(item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(unknown_key(path, {}) or _not_here(path))
        elif item["type"] == PARAMETER:
            lines.append(f"{path}.{item['msg']}")
        elif item["type"] == "missing":
            lines.append(f"{path}: needs a value; add {path}=…")
        elif item["type"] in ("union_tag_invalid", "union_tag_not_found"):
            lines.append(_unknown_kind(path, item))
        else:
            value = item.get("input")
            text = written(path) if _unquoted(item) else None
            value = value if text is None else _AsWritten(text)
            shown = "" if _secret(path.rpartition(".")[2], text or value) else f"{value!r}: "
            lines.append(f"{path}={shown}{item['msg'][0].lower()}{item['msg'][1:]}{_quote_hint(path, item, text)}")
        named = file(path)
        if named is not None:
            lines[-1] += f" ({named})"
    return lines


class _AsWritten(str):
    """A text that shows itself without quotes."""

    def __repr__(self) -> str:
        return str(self)


def _quote_hint(path: str, item: Mapping[str, Any], text: str | None) -> str:
    if not _unquoted(item):
        return ""
    if text is None:
        return "; quote a number that is a name"
    return f"; quote a number that is a name: {path}='\"{text}\"'"


def _unknown_kind(path: str, item: Mapping[str, Any]) -> str:
    """Names the kinds of a tagged union, with those of installed plug-ins, the nearest first."""
    context = item.get("ctx", {})
    kinds = [kind.strip(" '") for kind in str(context.get("expected_tags", "")).split(",")]
    kinds += [kind for port in _OPEN.get(re.sub(r".*\.|\[\d+\]", "", path), ()) for kind in plugins(port)]
    tag = str(context.get("tag", ""))
    near = nearest(tag, kinds).rstrip("?")
    return f"{path}.kind: got {tag or 'nothing'}; expected a kind of {path}: {near}. Fix: see engine plugins"


_OPEN = {"provider": ("executors",), "hardware": ("runtimes",), "workload": ("workloads",), "sources": ("sources",)}
"""The port of each field with open kinds, by the field's name."""


def _not_here(path: str) -> str:
    """Explains a key that the chosen kind lacks: the kinds that have it, else the nearest names."""
    where, _, key = path.rpartition(".")
    models = _models_at(where)
    having = [model for model in models if key in model.model_fields and "kind" in model.model_fields]
    kinds = sorted({str(kind) for model in having for kind in get_args(model.model_fields["kind"].annotation)})
    if not kinds:
        return f"{path}: no such key here; {nearest(key, [name for model in models for name in model.model_fields])}"
    return f"{path}: no such key here; {where} has it where its kind is {' or '.join(kinds)}"


def _unquoted(item: Mapping[str, Any]) -> bool:
    """Returns True if a number, or a word such as `no`, was read where a text is meant."""
    return item["type"] == "string_type" and type(item.get("input")) in (int, float, bool)


_TAGS = {
    kind
    for kinds in (ProviderSpec, HardwareSpec, WorkloadSpec, SourceSpec)
    for mark in get_args(kinds)
    if isinstance(mark, OpenKinds)
    for kind in mark.own
}
"""Kinds that pydantic puts into the path of an error; of an installed kind it puts none."""


def _dotted(location: tuple[int | str, ...]) -> str:
    """Drops the tags that pydantic puts after a tagged union's field."""
    parts: list[str] = []
    tagged = False
    for part in location:
        if tagged and isinstance(part, str):
            tagged = False
            if part in _TAGS:
                continue
        if isinstance(part, int):
            parts[-1] += f"[{part}]"
            tagged = parts[-1].startswith("sources")
            continue
        parts.append(part)
        tagged = part in ("provider", "hardware", "workload")
    return ".".join(parts)


_FIELD_MAP = re.compile(r"(?:^|\.)provider\.fields\.")
"""Paths below which keys and values are names of fields, such as max_tokens: refused only by their shape."""


def refuse_secrets(config: Any, path: str = "") -> None:
    """Raises ConfigError when a value is a secret, without showing it."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if _secret("", str(key)):
                raise _refused(f"a key of {path}" if path else "a key")
            refuse_secrets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(config, list | tuple):
        for index, value in enumerate(config):
            refuse_secrets(value, f"{path}[{index}]")
    elif _secret("" if _FIELD_MAP.search(path) else path.rpartition(".")[2], config):
        raise _refused(path)


def _refused(path: str) -> ConfigError:
    return ConfigError(
        f"{path}: looks like a secret (not shown). Config holds names, never values: "
        "put it into the environment (or .env, ~/.ipfs_api_credentials)\n"
        "and name that with provider.credential.env=[NAME]"
    )


def mask(text: str) -> str:
    """Returns what is about to be shown without any secret of the environment or anything that looks like one."""
    for value in _known():
        text = mask_secret(text, Secret(value))
    return mask_shapes(text)


def _secret(name: str, value: Any) -> bool:
    if not isinstance(value, str) or len(value) < 8:
        return isinstance(value, str) and value != "" and bool(SECRET_KEYS.search(name))
    if SECRET_KEYS.search(name) or looks_like_secret(value):
        return True
    return any(value == known or (len(known) >= _CONTAINED_CHARS and known in value) for known in _known())


def _known() -> list[str]:
    """Values of the environment that are secrets, by the names of their variables."""
    return [value for name, value in os.environ.items() if SECRET_ENV.search(name) and len(value) >= 8]
