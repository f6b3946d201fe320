"""run.log: what happened during one run, without secrets."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SECRETS = re.compile(
    r"(?P<keep>(?i:bearer|basic|token)\s+|(?i:api[-_]?key|authorization|x-goog-api-key)['\"]?\s*[=:]\s*['\"]?|://)"
    r"(?P<userinfo>[^\s/@'\"]+(?=@))?(?(userinfo)|(?<!//)[^\s'\",}]+)"
    r"|\b(?:sk|gsk|hf|xai|nvapi|r8|pplx|AIza)[-_A-Za-z0-9]{12,}"
)
"""What keys look like where they might slip into a message: after their header or parameter, inside a URL, by prefix."""


def redact(text: str) -> str:
    """The text with anything that looks like a key replaced by ***. The last line of defence, not the first."""
    return _SECRETS.sub(lambda match: f"{match.group('keep') or ''}***", text)


class _Formatter(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


@contextmanager
def run_log(path: Path, level: str = "info") -> Iterator[None]:
    """Writes what the logger `engine` and its children say to a file while the context is open."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
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
