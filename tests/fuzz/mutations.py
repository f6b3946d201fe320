"""Replaces any value at any depth of a JSON document by any JSON value."""

from __future__ import annotations

import copy
import random
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 5, 2**31, 2**63, 2**70, -(2**63), 0.0, 0.5, -1.5, 1e300, "", "x", "0", "-1", "null",
    "stop", "error", "STOP", "text", "tool_use", "[DONE]", "\x00", "\ufeff", "🙂", "a" * 300, [], [None], [[]], [{}],
    [1], ["x"], [[1]], [[[]]], {}, {"x": 1}, {"type": "text"}, {"text": 5}, {"text": "x"}, {"error": {}}, {"": None},
    {"role": "user", "content": "x"}, {"data": "x"}, {"name": 5},
)  # fmt: skip


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a document, its own included."""
    found = [at]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += paths(item, (*at, key))
    return found


def mutated(document: Any, rng: random.Random, values: tuple[Any, ...] = VALUES) -> Any:
    """A copy of a document with one or two changes: a value that is replaced, removed, added or repeated."""
    changed = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 1, 2))):
        path = rng.choice(paths(changed))
        if not path:
            if rng.random() < 0.1:
                return copy.deepcopy(rng.choice(values))
            path = rng.choice(paths(changed))
            if not path:
                continue
        holder = changed
        for key in path[:-1]:
            holder = holder[key]
        change = rng.random()
        if change < 0.8:
            holder[path[-1]] = copy.deepcopy(rng.choice(values))
        elif change < 0.9:
            del holder[path[-1]]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(rng.choice(values)))
        else:
            holder[rng.choice(("x", "type", "error", "index", "usage"))] = copy.deepcopy(rng.choice(values))
    return changed
