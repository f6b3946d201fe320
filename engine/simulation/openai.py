"""A simulated failure in OpenAI's words, which are the canonical ones. Source: OpenAI's guide "Error codes"."""

from __future__ import annotations

from engine.dialects.openai.server import ERRORS
from engine.simulation.provider import Failure


def code_of(failure: Failure) -> str | None:
    """Returns the error's code on the wire; None without a reply."""
    if failure.status is None:
        return None
    return ERRORS[failure.word][0 if failure.kind == "error_in_200" else 1]
