"""The rows of the matrix: their names and sources, and the names that transformers no longer knows."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine.core.errors import ConfigError, nearest
from engine.matrix.names import GONE, MAPPED, NAMED
from engine.matrix.report.record import Group


@dataclass(frozen=True)
class Entry:
    """One row: its name, its source, and the model type that is built for it."""

    name: str
    group: Group
    model_type: str
    checkpoint: str = ""


def entries(patterns: Sequence[str] = ()) -> list[Entry]:
    """Returns every row, or those whose name matches one of the patterns (as in a shell: `bert*`), sorted by name.

    A pattern may also name a group: `mapped`, `named`, `installed`, `shape`. Raises ConfigError for one that matches
    nothing.
    """
    found = sorted(_all(), key=lambda entry: entry.name.lower())
    if not patterns:
        return found
    chosen: list[Entry] = []
    for pattern in patterns:
        matching = [entry for entry in found if fnmatch.fnmatchcase(entry.name, pattern) or entry.group == pattern]
        if not matching:
            names = [entry.name for entry in found]
            raise ConfigError(f"matrix {pattern}: matches no model type; {nearest(pattern, names)}")
        chosen += [entry for entry in matching if entry not in chosen]
    return sorted(chosen, key=lambda entry: entry.name.lower())


def _all() -> Iterable[Entry]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    from engine.matrix.build.overrides import OVERRIDES

    names = {*CONFIG_MAPPING_NAMES, *NAMED}
    for name in names:
        yield Entry(name, _group(name), name, MAPPED.get(name, ""))
    for name, override in OVERRIDES.items():
        if name not in names:
            yield Entry(name, "shape", override.model_type, override.checkpoint)


def _group(name: str) -> Group:
    if name in MAPPED:
        return "mapped"
    return "named" if name in NAMED else "installed"


def gone(name: str) -> str:
    """Returns the reason that a name is not a model type of the installed transformers; empty if it is one."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if name in CONFIG_MAPPING_NAMES:
        return ""
    return GONE.get(name, "not a model type of the installed transformers")
