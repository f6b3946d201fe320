"""Holds back the first rows of a session while they fail alike: a mistake in the setup must not use up a workload.

Until a row is answered or fails in another way, nothing shows that the rows, rather than the setup, are at fault. Such
rows are not recorded yet. At `output.max_alike` of them the run stops, and none of them is used up.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from engine.core.request import Result

_ROWS_OWN = frozenset({"too_long", "content_filtered", "deadline", "queue_full", "cancelled"})
"""Failures of the row or of the traffic, which say nothing about the setup."""
_VARIES = re.compile(r"\S*\d\S*")
"""Words with a digit: ids of requests, counts, times."""


class FirstFailures:
    """The rows of one session that failed before any was answered. Lives on one event loop."""

    def __init__(self, most: int | None) -> None:
        """`most` such rows stop the run; None: every failure is recorded at once."""
        self._most = most
        self._open = most is not None
        self._alike: tuple[str, int | None, str] | None = None
        self._message = ""
        self._held: list[Callable[[], None]] = []

    @property
    def holds(self) -> bool:
        """True while rows are held back."""
        return bool(self._held)

    @property
    def reached(self) -> bool:
        return self._open and self._most is not None and len(self._held) >= self._most

    @property
    def reason(self) -> str:
        """Returns the reason to stop, and the next step."""
        return (
            f"the first {self._most} rows all failed alike and none was answered: {self._message.rstrip('.')}. "
            "They are not used up. Fix: start a new run with another model, provider or parameters; or set "
            "output.max_alike=null to continue whatever fails; or mend what it names where it is"
        )

    def hold(self, result: Result, record: Callable[[], None]) -> bool:
        """Returns True if the row is held back, and `record` is called later or never. Otherwise records the rows held
        back so far, and the caller records this one now."""
        error = result.error
        if not self._open or (error is not None and (error.kind in _ROWS_OWN or not result.engine.attempts)):
            return False
        if error is not None:
            alike = (error.kind, error.status, _VARIES.sub("#", error.message))
            if self._alike in (None, alike):
                self._alike, self._message = alike, f"{error.kind}: {error.message}"
                self._held.append(record)
                return True
        self._open = False
        self.release()
        return False

    def release(self) -> int:
        """Records the rows held back; returns how many."""
        held, self._held = self._held, []
        for record in held:
            record()
        return len(held)
