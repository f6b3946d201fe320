"""Loads a complete checkpoint: a weight that the files lack is an error, never a random number."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from engine.core.errors import SetupError

_SHOWN = 3


def load(cls: Any, folder: Path | str, *, unused: Iterable[str] = (), **options: Any) -> Any:
    """Returns `cls.from_pretrained(folder)`, a model of transformers or diffusers.

    `unused`: beginnings of names of weights that the caller's task does not compute with. Raises SetupError for missing
    weights, and what the library raises.
    """
    model, info = cls.from_pretrained(folder, local_files_only=True, output_loading_info=True, **options)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(tuple(unused)))
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise SetupError(
            f"model.sources: {folder} lacks weights of {type(model).__name__}: {', '.join(missing[:_SHOWN])}{more}. "
            "Fix: fetch the folder again, or name a task that the checkpoint was trained for in model.tasks"
        )
    return model


def damage(path: Path) -> str | None:
    """Returns the first file of a model that can't be read, with the reason; None if all can."""
    for file in sorted([path] if path.is_file() else path.rglob("*")):
        reason = _unreadable(file)
        if reason is not None:
            return f"{file} is damaged: {reason}. Fix: delete it, so that it is fetched again"
    return None


def _unreadable(file: Path) -> str | None:
    try:
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(file, "np"):
                pass
    except Exception as error:  # SafetensorError has no base of its own; a broken file raises anything
        return f"{type(error).__name__}: {error}"
    return None
