"""Kinds that installed packages add: entry points of the groups `engine.<port>`, read when an unknown kind is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_args

from pydantic import BaseModel, SerializationInfo, SerializerFunctionWrapHandler, WrapSerializer, WrapValidator

from engine.schemas.base import Spec

PORTS = (
    "stages",
    "dialects",
    "batch_dialects",
    "transports",
    "executors",
    "runtimes",
    "workloads",
    "sources",
)
"""The ports that take plug-ins, in the order of a request's way."""


class PluginError(ValueError):
    """An installed plug-in can't be used. The message names its distribution and the fix."""


@dataclass(frozen=True)
class Plugin:
    """A kind that an installed distribution adds to a port."""

    port: str
    kind: str
    entry: EntryPoint

    @property
    def distribution(self) -> str:
        """Name and version of the distribution, such as `engine-acme 1.2`."""
        dist = self.entry.dist
        return "an unknown distribution" if dist is None else f"{dist.name} {dist.version}"

    def load(self) -> Any:
        """Imports the object that the entry point names. Raises PluginError."""
        try:
            return self.entry.load()
        except Exception as error:  # the boundary: a plug-in's import runs foreign code
            raise PluginError(
                f"plug-in {self.kind!r} of engine.{self.port} ({self.distribution}): got {type(error).__name__}: "
                f"{error}; expected {self.entry.value} to be importable. Fix: reinstall or remove {self.distribution}"
            ) from error

    def spec(self) -> type[Spec] | None:
        """Returns the plug-in's spec, its class attribute `spec`; None without one. Raises PluginError."""
        declared = getattr(self.load(), "spec", None)
        if declared is not None and not (isinstance(declared, type) and issubclass(declared, Spec)):
            raise PluginError(
                f"plug-in {self.kind!r} of engine.{self.port} ({self.distribution}): got spec={declared!r}; "
                "expected a subclass of engine.schemas.base.Spec. Fix: correct its class attribute `spec`"
            )
        return declared


@cache
def plugins(port: str) -> dict[str, Plugin]:
    """Returns the plug-ins of a port by kind. Reads the metadata of installed distributions, and imports nothing."""
    return {entry.name: Plugin(port, entry.name, entry) for entry in entry_points(group=f"engine.{port}")}


def plugin_specs(port: str) -> dict[str, type[Spec]]:
    """Returns the specs of a port's plug-ins that have one and can be imported."""
    specs = {}
    for kind, plugin in plugins(port).items():
        try:
            spec = plugin.spec()
        except PluginError:
            continue
        if spec is not None:
            specs[kind] = spec
    return specs


def own_kinds(*specs: type[BaseModel]) -> tuple[str, ...]:
    """Returns the kinds that specs of ours have."""
    return tuple(kind for spec in specs for kind in get_args(spec.model_fields["kind"].annotation))


@dataclass(frozen=True)
class OpenKinds:
    """Marks a field whose `kind` an installed package may add: metadata for diagnostics and schemas."""

    port: str
    own: tuple[str, ...]

    def names(self) -> list[str]:
        """Returns every kind that can be named."""
        return [*self.own, *(kind for kind in plugins(self.port) if kind not in self.own)]


def open_kinds(port: str, own: tuple[str, ...]) -> tuple[OpenKinds, WrapValidator, WrapSerializer]:
    """Returns the metadata of an open field: our kinds are validated as declared, others by their plug-in's spec."""

    def validate(value: Any, handler: Callable[[Any], Any]) -> Any:
        kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
        if not isinstance(kind, str) or kind in own:
            return handler(value)
        plugin = plugins(port).get(kind)
        spec = plugin.spec() if plugin is not None else None
        if plugin is None or spec is None:
            return handler(value)
        return value if isinstance(value, spec) else spec.model_validate(value)

    def serialize(value: Any, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> Any:
        if getattr(value, "kind", None) in own or not isinstance(value, Spec):
            return handler(value)
        return value.model_dump(mode=info.mode, exclude_defaults=info.exclude_defaults)

    return OpenKinds(port, own), WrapValidator(validate), WrapSerializer(serialize)
