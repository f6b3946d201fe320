"""run.log: what happened during one run, without secrets."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.core.printable import one_line, printable

_SECRETS = (
    (re.compile(r"(?i)\b(authorization|(?:x-)?api[-_]?key|x-goog-api-key)(['\"]?\s*[=:]\s*['\"]?)"
                r"(?:(?:bearer|basic)\s+)?[^\s'\",}]+"), r"\1\2***"),
    (re.compile(r"(?i)\bbearer\s+[-._~+/=a-z0-9]{8,}"), "Bearer ***"),
    (re.compile(r"(?<=://)[^\s/@]+@"), "***@"),
    (re.compile(r"\b(?:sk|gsk|hf|xai|nvapi|r8|pplx)[-_][-_A-Za-z0-9]{12,}|\bAIza[-_A-Za-z0-9]{20,}"), "***"),
)  # fmt: skip
"""The shapes of keys where they might slip into a message: in a header or parameter, in a URL, by their prefix."""


def redact(text: str) -> str:
    """Replaces anything that looks like a key by ***. The last line of defence, not the first."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class _Formatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Keeps a message on one line: a row's id, or an answer, may hold a line that looks like a log line."""
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        head, *traceback = printable(redact(super().format(record))).split("\n")
        return "\n".join([head, *(f"  {line}" for line in traceback)])


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Drops the traceback of a full disk, which would hide the error that ends the run."""


@contextmanager
def run_log(path: Path, level: str = "info") -> Iterator[None]:
    """Writes the messages of the logger `engine` and its children to a file while the context is open."""
    handler = _LogFile(path, encoding="utf-8", delay=True)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(level.upper())
    logger = logging.getLogger("engine")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(handler.level, before) if before else handler.level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()
