"""How many calls a second a key takes, found out by how the provider refuses them."""

from __future__ import annotations

from engine.clock import Clock

WINDOW_S = 0.5
"""Over how long the rate of what is sent is measured, before the first refusal."""
KEPT = 0.85
"""What is left of the rate after a refusal."""
KEPT_AGAIN = 0.7
"""What is left of it when the refusal before was only just made up for: the rate is far too high."""
GROWTH = 0.4
"""C of RFC 9438 (CUBIC), section 5."""
MIN_CALLS = 150
"""Calls at least until the old rate is reached again: a probe beyond it costs a refusal, which must stay rare."""
_LOWEST = 0.01


class LearnedRate:
    """Cuts the rate when a call is refused, and comes back along the curve of RFC 9438: quickly at first, slowly near
    the rate at which the refusal came, and then beyond it.

    After the client-side rate limiter of "adaptive" mode, AWS SDKs and Tools Reference Guide, "Retry behavior". Ours
    counts a burst of refusals once, and goes slowly where calls are few.
    """

    def __init__(self, clock: Clock) -> None:
        self.rate: float | None = None
        """Calls a second; None: nothing was refused yet, and there is no limit."""
        self.cuts = 0
        self._window_from = clock.monotonic()
        self._sent = 0
        self._before = 0.0
        """Calls a second in the window before this one."""
        self._peak = 0.0
        self._cut_at = float("-inf")
        self._back_s = 0.0
        self._lost = 0.0
        self._used_s = 0.0

    def sent(self, now: float) -> None:
        """A call goes out."""
        passed = now - self._window_from
        if passed >= WINDOW_S:
            self._before, self._window_from, self._sent = self._sent / passed, now, 0
        self._sent += 1

    def refused(self, now: float, started: float) -> bool:
        """A call that went out at `started` came back with "too many". True: the rate was cut."""
        if started <= self._cut_at:
            return False
        again = self.rate is not None and self._used_s < self._back_s / 2
        peak = self.rate
        if peak is None:
            peak = max(self._before, self._sent / max(WINDOW_S, now - self._window_from))
        # Fast convergence, section 4.7: refused before the old peak was reached, so that was too high.
        lower = self.rate is not None and peak < self._peak
        self._peak = max(peak * (1 + KEPT) / 2 if lower else peak, _LOWEST)
        self._cut_at, self.cuts = now, self.cuts + 1
        kept = KEPT_AGAIN if again else KEPT
        self._lost, self._used_s = 1 - kept, 0.0
        self._back_s = max((self._peak * self._lost / GROWTH) ** (1 / 3), MIN_CALLS / self._peak)
        self.rate = peak * kept
        return True

    def grown(self, passed_s: float, held_back: bool) -> float:
        """The rate, after `passed_s` further seconds. Beyond the old peak it grows only while it holds calls back."""
        if held_back or self._used_s < self._back_s:
            self._used_s += passed_s if held_back else min(passed_s, self._back_s - self._used_s)
        reached = self._used_s / self._back_s - 1.0
        self.rate = max(self.rate or 0.0, self._peak * (1 + self._lost * reached**3))
        return self.rate
