"""The file that sets a key, and the text that was written for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from yaml import BaseLoader, YAMLError, load  # type: ignore[import-untyped]

from engine.config.option_folders import OptionFile

_ABSENT = object()


class Origins:
    """The files and the overrides of a composition, by dotted key such as `model.sources[0].revision`."""

    def __init__(self, files: Sequence[OptionFile], overrides: Sequence[str]) -> None:
        self._files = list(reversed(files))  # the last one wins
        self._overrides = [line.lstrip("+").partition("=")[::2] for line in reversed(overrides) if "=" in line]

    def file(self, key: str) -> str | None:
        """Returns the config repo's file that has `key`, or the nearest key around it; None for another origin."""
        parts = _parts(key)
        for length in range(len(parts), 0, -1):
            if any(_parts(typed) == parts[:length] for typed, _ in self._overrides):
                return None
            for file in self._files:
                package = _parts(file.package)
                if parts[: len(package)] != package or len(package) > length:
                    continue
                if length == len(package) or _at(file.content, parts[len(package) : length]) is not _ABSENT:
                    return None if file.origin == "engine" else str(file.path)
        return None

    def written(self, key: str) -> str | None:
        """Returns the text that was written for a single value; None if it is not found."""
        parts = _parts(key)
        for typed, text in self._overrides:
            above = _parts(typed)
            if parts[: len(above)] == above:
                found = text.strip() if parts == above else _text_at(_flow(text), parts[len(above) :])
                return found
        for file in self._files:
            package = _parts(file.package)
            if parts[: len(package)] == package:
                found = _text_at(_yaml(file.path), parts[len(package) :])
                if found is not None:
                    return found
        return None


def _parts(key: str) -> list[str]:
    return [part for part in re.split(r"[.\[\]]+", key) if part]


def _at(content: Any, parts: Sequence[str]) -> Any:
    """Returns the value at a path of a config or of plain data, interpolations as they are."""
    for part in parts:
        if isinstance(content, DictConfig | ListConfig):
            content = OmegaConf.to_container(content, resolve=False)
        if isinstance(content, Mapping) and part in content:
            content = content[part]
        elif isinstance(content, list) and part.isdigit() and int(part) < len(content):
            content = content[int(part)]
        else:
            return _ABSENT
    return content


def _text_at(content: Any, parts: Sequence[str]) -> str | None:
    found = _at(content, parts)
    return found if isinstance(found, str) else None


def _yaml(file: Path) -> Any:
    """Returns a file's content with each value as the text that the file has."""
    try:
        return load(file.read_text(encoding="utf-8"), BaseLoader)
    except (OSError, ValueError, YAMLError):
        return None


def _flow(text: str) -> Any:
    """Returns a list or mapping of Hydra's grammar, which is YAML but for the space after a colon, as texts."""
    try:
        return load(re.sub(r"([{,]\s*[\w-]+):(?=[^\s/])", r"\1: ", text), BaseLoader)
    except YAMLError:
        return None
