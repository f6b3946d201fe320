"""The error tree and the closed failure vocabulary.

EngineError
├── ConfigError            the configuration is not valid; nothing was started       (exit 2)
├── SetupError             valid, but this machine can't do it: key, file, hardware   (exit 4)
├── OutputError            the run directory can't be written or continued            (exit 5)
├── Stalled                nothing was answered for too long; the run can be resumed  (exit 6)
├── OverLimit              the run has spent what it may; the run can be resumed      (exit 7)
├── Interrupted            stopped by the user; the run can be resumed                (exit 130)
└── InferenceError         one request failed; `kind` is a word of the vocabulary
    ├── Throttled QuotaExhausted AuthFailed InvalidRequest TooLong ContentFiltered
    ├── Truncated Malformed TimedOut ConnectFailed ServerFailed Overloaded
    └── CircuitOpen QueueFull DeadlineExceeded Cancelled Internal
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from engine.core.usage import Usage


class EngineError(Exception):
    """Root of every error that the engine raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(EngineError):
    """The configuration is not valid. The message has one line a problem, each with its next step."""

    exit_code = 2


class SetupError(EngineError):
    """The configuration is valid, but something it needs is not here: a key, a file, a package, a device."""

    exit_code = 4


class OutputError(EngineError):
    """The run directory can't be made, written or continued."""

    exit_code = 5


class Stalled(EngineError):
    """No row of a run got anywhere for `output.stalled_s`; what was finished is recorded and the run can be resumed."""

    exit_code = 6


class OverLimit(EngineError):
    """A run has spent `output.max_cost_usd`; what was finished is recorded and the run can be resumed."""

    exit_code = 7


class Interrupted(EngineError):
    """The user stopped the run; what was finished is recorded and the run can be resumed."""

    exit_code = 130


class InferenceError(EngineError):
    """One request failed. Subclasses say how; their class attributes say what each stage does about it."""

    kind: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    """Another try may succeed."""
    counts_for_breaker: ClassVar[bool] = False
    """It says something about the endpoint's health."""
    parks_key: ClassVar[bool] = False
    """The key, not the endpoint, is the problem."""
    status_code: ClassVar[int] = 500
    """The HTTP status that a client of ours would see."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        provider_request_id: str | None = None,
        code: str | None = None,
    ) -> None:
        """`status` is the provider's HTTP status, `code` its own error code, `retry_after_s` its hint in seconds."""
        super().__init__(message)
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s
        self.provider_request_id = provider_request_id
        self.code = code
        self.usage: Usage | None = None
        """The usage that the provider reports for the failed call; None if it reports none."""
        self.elsewhere = False
        """Another key or endpoint of the same target can be called at once; set where these are chosen."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the error as results and replies hold it, without unset fields."""
        record: dict[str, Any] = {"kind": self.kind, "message": self.message}
        for name in ("status", "code", "retry_after_s", "provider_request_id"):
            value = getattr(self, name)
            if value is not None:
                record[name] = value
        return record


class Throttled(InferenceError):
    """Too many requests or tokens just now."""

    kind, retryable, status_code = "throttled", True, 429


class QuotaExhausted(InferenceError):
    """The key's quota or credit is used up."""

    kind, parks_key, status_code = "quota_exhausted", True, 429


class AuthFailed(InferenceError):
    """The key is missing, wrong or not allowed to do this."""

    kind, parks_key, status_code = "auth", True, 401


class InvalidRequest(InferenceError):
    """The request itself is wrong; no other try can help."""

    kind, status_code = "invalid_request", 400


class TooLong(InferenceError):
    """Prompt and answer do not fit the model's context."""

    kind, status_code = "too_long", 400


class ContentFiltered(InferenceError):
    """The provider refused the content."""

    kind, status_code = "content_filtered", 400


class Truncated(InferenceError):
    """The reply or stream ended before its true end."""

    kind, retryable, counts_for_breaker, status_code = "truncated", True, True, 502


class Malformed(InferenceError):
    """The reply can't be understood."""

    kind, retryable, counts_for_breaker, status_code = "malformed", True, True, 502


class TimedOut(InferenceError):
    """No answer within a limit of this attempt."""

    kind, retryable, counts_for_breaker, status_code = "timeout", True, True, 504


class ConnectFailed(InferenceError):
    """No connection, or it broke before a reply."""

    kind, retryable, counts_for_breaker, status_code = "connect", True, True, 502


class ServerFailed(InferenceError):
    """The provider failed inside."""

    kind, retryable, counts_for_breaker, status_code = "server", True, True, 502


class Overloaded(InferenceError):
    """The provider has no capacity just now."""

    kind, retryable, status_code = "overloaded", True, 503


class CircuitOpen(InferenceError):
    """The breaker holds calls back from this endpoint."""

    kind, status_code = "circuit_open", 503
    probing = False
    """Half open: a few calls find out just now whether the endpoint is back, however long these take."""
    change: Any = None
    """While probing: a future that ends when it is known."""
    known_in_s: float | None = None
    """While probing: how long that may take, in seconds; None: no limit."""


class QueueFull(InferenceError):
    """No room to wait."""

    kind, status_code = "queue_full", 503


class DeadlineExceeded(InferenceError):
    """The request's own time is over."""

    kind, status_code = "deadline", 504


class Cancelled(InferenceError):
    """The caller gave up."""

    kind, status_code = "cancelled", 499


class Internal(InferenceError):
    """A defect of the engine or of a runtime."""

    kind = "internal"


FAILURES: dict[str, type[InferenceError]] = {
    cls.kind: cls
    for cls in (
        Throttled, QuotaExhausted, AuthFailed, InvalidRequest, TooLong, ContentFiltered, Truncated, Malformed,
        TimedOut, ConnectFailed, ServerFailed, Overloaded, CircuitOpen, QueueFull, DeadlineExceeded, Cancelled,
        Internal,
    )
}  # fmt: skip
"""The closed vocabulary: every way in which a request can fail, by its word."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """A clause that offers the nearest valid names, or lists them if no name is near; empty without names."""
    import difflib

    options = sorted({str(option) for option in known})
    if not options:
        return ""
    close = difflib.get_close_matches(str(name), options, n=count, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    shown = ", ".join(options[:12]) + (", …" if len(options) > 12 else "")
    return f"one of: {shown}"


def retyped(error: InferenceError, kind: type[InferenceError], step: str = "") -> InferenceError:
    """Returns `error` as a `kind`, with all that the provider reported; `step` is added to its message."""
    return kind(
        error.message + step,
        status=error.status,
        retry_after_s=error.retry_after_s if kind.retryable else None,
        provider_request_id=error.provider_request_id,
        code=error.code,
    )
