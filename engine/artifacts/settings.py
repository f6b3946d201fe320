"""Reads the JSON files of a model's folder, such as config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.core.errors import SetupError


def read(path: Path) -> Any:
    """Returns a file's JSON; None if the file does not exist. Raises SetupError for a file that can't be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):  # a model may be a file of its own
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise SetupError(
            f"model.sources: {path} is damaged: {type(error).__name__}: {error}. Fix: delete it, so that it is fetched "
            "again"
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """Returns a file's JSON object; an empty one if the file does not exist. Raises SetupError as `read`, and for other
    JSON."""
    found = read(path)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise SetupError(
            f"model.sources: {path}: got {type(found).__name__}; expected an object. Fix: delete it, so that it is "
            "fetched again"
        )
    return found
