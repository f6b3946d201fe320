"""Reads the text of a canonical reply."""

from __future__ import annotations

from typing import Any


def first_text(body: Any) -> str | None:
    """Returns the first text that a reply answers with; None if it has none.

    Reads a chat's or a completion's first choice, the output texts of a response, and a transcription or translation.
    Never raises, whatever the types in `body`.
    """
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return _choice_text(choices[0])
    if isinstance(body.get("output"), list):
        return _output_text(body["output"])
    return _text(body.get("text"))


def delta_text(body: Any) -> str:
    """Returns the text that a chunk adds to the first choice or to a response; empty if it adds none. Never raises."""
    if not isinstance(body, dict):
        return ""
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        delta = choices[0].get("delta")
        return _text(delta.get("content") if isinstance(delta, dict) else choices[0].get("text")) or ""
    kind = body.get("type")
    return (_text(body.get("delta")) or "") if isinstance(kind, str) and kind.endswith("text.delta") else ""


def _choice_text(choice: dict[str, Any]) -> str | None:
    message = choice.get("message")
    return _content_text(message.get("content")) if isinstance(message, dict) else _text(choice.get("text"))


def _content_text(content: Any) -> str | None:
    """Returns a message's text: a string, or the texts of its parts together."""
    if not isinstance(content, list):
        return _text(content)
    texts = [_text(part.get("text")) for part in content if isinstance(part, dict)]
    return "".join(text for text in texts if text is not None) if any(text is not None for text in texts) else None


def _output_text(output: list[Any]) -> str | None:
    """Returns the texts of a response's messages together."""
    texts = [_content_text(item.get("content")) for item in output if isinstance(item, dict)]
    present = [text for text in texts if text is not None]
    return "".join(present) if present else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
