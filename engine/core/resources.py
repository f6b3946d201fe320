"""The state that stages share: breakers, queues, key health. Injected, keyed by what it protects."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from random import Random
from typing import Any, TypeVar

from engine.core.clock import Clock, SystemClock
from engine.core.watchdog import Watchdog

T = TypeVar("T")


class Resources:
    """One engine's shared state. Two stages that name the same key get the same object."""

    def __init__(self, clock: Clock | None = None, seed: int = 0) -> None:
        self.clock: Clock = clock or SystemClock()
        self.rng = Random(seed)
        self.watchdog = Watchdog()
        self._objects: dict[tuple[Hashable, ...], Any] = {}

    def get(self, key: tuple[Hashable, ...], make: Callable[[], T]) -> T:
        if key not in self._objects:
            self._objects[key] = make()
        found: T = self._objects[key]
        return found

    def find(self, key: tuple[Hashable, ...]) -> Any:
        """Returns the state under this key; None before it was made."""
        return self._objects.get(key)

    def kinds(self) -> list[str]:
        """Returns the first parts of all keys, each once."""
        return list(dict.fromkeys(str(key[0]) for key in self._objects))

    def items(self, kind: str) -> dict[tuple[Hashable, ...], Any]:
        """Returns everything whose key starts with `kind`."""
        return {key: value for key, value in self._objects.items() if key[0] == kind}
