"""Tokens in OpenAI's words, and what is used of what is not sold by tokens."""

from __future__ import annotations

from typing import Any

from engine.core.task_table import TASKS
from engine.core.usage import Usage


def openai_usage(usage: Usage) -> dict[str, int]:
    """The `usage` object of a reply."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def pieces(task: str, asked: dict[str, Any], reply: dict[str, Any]) -> Usage | None:
    """Returns what a call used, by its body and its reply, where the provider counted no tokens; None: that can't get.

    Speech is sold by the character of the text, a transcription by the second of the audio (`duration`, of the form
    verbose_json), images one by one (OpenAI's API reference, "Create speech", "Create transcription"; its pricing).
    """
    if task == "speech":
        text = asked.get("input")
        return Usage(characters=len(text)) if type(text) is str and text else None
    if task in ("transcription", "audio-translation"):
        seconds = reply.get("duration")
        return Usage(audio_s=float(seconds)) if isinstance(seconds, int | float) and seconds > 0 else None
    if TASKS[task].gives_images:
        made = reply.get("data")
        return Usage(images=len(made)) if type(made) is list and made else None
    return None
