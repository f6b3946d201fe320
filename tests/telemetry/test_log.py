"""engine/telemetry/log.py."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from engine.telemetry.log import redact, run_log


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer canary-0123456789",
        "{'x-api-key': 'canary-0123456789'}",
        "GET /v1?api_key=canary-0123456789",
        "proxy http://user:canary-0123456789@proxy:3128 refused",
        "Incorrect API key provided: sk-canary-0123456789",
        "bearer canary-0123456789 was refused",
    ],
)
def test_keys_do_not_reach_the_log(text: str, tmp_path: Path) -> None:
    with run_log(tmp_path / "run.log"):
        logging.getLogger("engine.x").info(text)
    assert "canary" not in (tmp_path / "run.log").read_text()


@pytest.mark.parametrize("text", ["https://api.example.com/v1/x", "tokens per minute: 5", "a basic token is enough"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_a_log_belongs_to_its_run_and_has_its_level(tmp_path: Path) -> None:
    logger = logging.getLogger("engine.x")
    with run_log(tmp_path / "run.log", "warning"):
        logger.info("quiet")
        logger.warning("loud")
    logger.warning("after")
    text = (tmp_path / "run.log").read_text()
    assert "WARNING engine.x: loud" in text
    assert "quiet" not in text
    assert "after" not in text


def test_a_message_is_one_line_and_steers_no_terminal(tmp_path: Path) -> None:
    logger = logging.getLogger("engine.x")
    forged = "2026-01-01T00:00:00.000Z ERROR engine: forged"
    with run_log(tmp_path / "run.log"):
        logger.warning("row %s failed", f"a\x1b[31m\r\n{forged}\u2028{forged}")
        try:
            raise ValueError(f"\x9b2J\n{forged}")
        except ValueError:
            logger.exception("caught")
    text = (tmp_path / "run.log").read_text()
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert not [line for line in text.splitlines() if line.startswith("2026-01-01")]
    assert "Traceback" in text
