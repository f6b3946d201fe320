"""Several places that serve the same: the first healthy one is used, one that is down is skipped for a while."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from engine.core.clock import Clock, Rng
from engine.core.errors import CircuitOpen
from engine.middleware.breaker import Breaker, Permit
from engine.schemas.policy.breaker import BreakerSpec

_SPEC = BreakerSpec(consecutive_failures=1, min_calls=1, open_s=5.0, max_open_s=60.0, probes=1)
"""One failure is enough: there is another place. The pause doubles with each failure after a return."""


class Attempt:
    """One call to one place. Settle it with one of its methods."""

    def __init__(self, name: str, breaker: Breaker, permit: Permit | None, lock: threading.Lock) -> None:
        self.name = name
        self._breaker, self._permit, self._lock = breaker, permit, lock

    def worked(self) -> None:
        """Notes an answer, even a refusal."""
        self._settle(False)

    def failed(self) -> None:
        """Notes that the place is down, or sends wrong data."""
        self._settle(True)

    def _settle(self, failed: bool) -> None:
        with self._lock:
            if self._permit is not None:
                self._breaker.settle(self._permit, failed)


class Replicas:
    """The places of one kind, in the user's order, with their known health. Used from any thread."""

    def __init__(self, names: Sequence[str], clock: Clock, rng: Rng) -> None:
        self._breakers = {name: Breaker(name, _SPEC, clock, rng) for name in names}
        self._lock = threading.Lock()
        self._banned: set[str] = set()

    def ban(self, name: str) -> None:
        """Excludes a place for good: it sent wrong data."""
        self._banned.add(name)

    @property
    def names(self) -> list[str]:
        """Returns the places that may be used."""
        return [name for name in self._breakers if name not in self._banned]

    def attempts(self) -> Iterator[Attempt]:
        """Yields one call to each place: healthy ones first, then, as a last resort, those that were down, soonest back
        first."""
        later: list[tuple[float, str]] = []
        for name in self.names:
            breaker = self._breakers[name]
            try:
                with self._lock:
                    permit = breaker.try_acquire()
            except CircuitOpen as error:
                later.append((error.retry_after_s or 0.0, name))
                continue
            yield Attempt(name, breaker, permit, self._lock)
        for _, name in sorted(later):
            yield Attempt(name, self._breakers[name], None, self._lock)
