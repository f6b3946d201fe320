"""Reads the nested configurations of a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def parts(config: Any) -> Iterator[Any]:
    """Yields the configuration and its nested ones, outermost first."""
    yield config
    for name in nested(config):
        yield from parts(getattr(config, name))


def nested(config: Any) -> list[str]:
    """Returns the names of the nested configurations that are set."""
    names = getattr(config, "sub_configs_defaults", None) or {}
    return [name for name in names if hasattr(getattr(config, name, None), "to_dict")]


def setting(config: Any, *names: str, default: Any = None) -> Any:
    """Returns the first of `names` that the configuration or a nested one sets."""
    for part in parts(config):
        for name in names:
            value = getattr(part, name, None)
            if value is not None:
                return value
    return default


def of_modality(config: Any, *words: str) -> Any:
    """Returns the nested configuration whose name has one of `words`, or the whole one."""
    for name in nested(config):
        if any(word in name for word in words) and "vq" not in name:
            return getattr(config, name)
    return config
