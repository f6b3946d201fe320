"""The shipped options as files. Imports nothing heavy, so that help and completion are quick."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

GROUPS = ("provider", "hardware", "model", "policy", "workload", "media", "output", "storage", "telemetry")
"""The groups, in the order in which a run is thought of."""


def conf_dir() -> Path:
    """Returns the folder of shipped options; in a checkout, the one that the link `engine/conf` points to."""
    return (Path(__file__).parents[1] / "conf").resolve()


def options(folders: Iterable[Path]) -> dict[str, list[str]]:
    """Returns the options of every group, such as {"provider": ["groq", …], "policy/queue": […]}, without the bases."""
    return {group: [name for name in names if name[0] != "_"] for group, names in option_files(folders).items()}


def option_files(folders: Iterable[Path]) -> dict[str, list[str]]:
    """Returns the files of every group by name. One that begins with _ is a base of options, not an option."""
    found: dict[str, set[str]] = {group: set() for group in GROUPS}
    for folder in folders:
        for file in folder.rglob("*.yaml"):
            group = file.parent.relative_to(folder).as_posix()
            if group.partition("/")[0] in found:
                found.setdefault(group, set()).add(file.stem)
    return {group: sorted(names) for group, names in found.items()}
