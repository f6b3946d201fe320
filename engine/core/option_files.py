"""The shipped options as files. Imports nothing heavy, so that help and completion are quick."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

GROUPS = ("provider", "hardware", "model", "policy", "workload", "prompt", "media", "output", "storage", "telemetry")
"""The groups, in the order in which a run is thought of."""


def conf_dir() -> Path:
    """Returns the folder of shipped options; in a checkout, the one that the link `engine/conf` points to."""
    return (Path(__file__).parents[1] / "conf").resolve()


def options(folders: Iterable[Path]) -> dict[str, list[str]]:
    """Returns the options of every group, such as {"provider": ["groq", …], "policy/queue": […]}, without the bases."""
    return {
        group: [name for name in names if name.rpartition("/")[2][0] != "_"]
        for group, names in option_files(folders).items()
    }


def option_files(folders: Iterable[Path]) -> dict[str, list[str]]:
    """Returns the files of every group by name. One that begins with _ is a base of options, not an option.

    A folder inside a group is a group if we ship it, such as policy/retry; else its files are options of the group:
    model/team/mine.yaml is the option team/mine.
    """
    groups = _shipped_groups()
    found: dict[str, set[str]] = {group: set() for group in GROUPS}
    for group, name in _files(folders):
        if group.partition("/")[0] in GROUPS:
            while group not in groups:
                group, _, last = group.rpartition("/")
                name = f"{last}/{name}"
            found.setdefault(group, set()).add(name)
    return {group: sorted(names) for group, names in found.items()}


def presets(folders: Iterable[Path]) -> dict[str, list[str]]:
    """Returns the options of groups that no run has, such as {"experiment": ["fast"]}: each may set several groups."""
    found: dict[str, set[str]] = {}
    for group, name in _files(folders):
        if group and group.partition("/")[0] not in (*GROUPS, "hydra", "prices"):
            found.setdefault(group, set()).add(name)
            first, _, below = group.partition("/")
            found.setdefault(first, set()).add(f"{below}/{name}".lstrip("/"))
    return {group: sorted(names) for group, names in found.items()}


def _files(folders: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yields the group and the name of each file; a file in no group is of the group ""."""
    for folder in folders:
        for file in folder.rglob("*.yaml"):
            group = file.parent.relative_to(folder).as_posix()
            yield "" if group == "." else group, file.stem


def _shipped_groups() -> set[str]:
    ours = conf_dir()
    return {*GROUPS, *(folder.relative_to(ours).as_posix() for folder in ours.rglob("*") if folder.is_dir())}
