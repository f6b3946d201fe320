"""Usage in OpenAI's form, and usage of services that are not sold by tokens."""

from __future__ import annotations

from typing import Any

from engine.core.task_table import TASKS
from engine.core.usage import Usage


def openai_usage(usage: Usage) -> dict[str, int]:
    """Returns the `usage` object of a reply."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def pieces(task: str, asked: dict[str, Any], reply: dict[str, Any]) -> Usage | None:
    """Returns a call's usage by its body and reply, for a provider that counted no tokens; None if they do not show it.

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
