"""Whole replies on the OpenAI wire: is this what was requested?

A reply that is not JSON, for speech and for transcripts as text, gets a canonical form here. Source: OpenAI's API
reference, the object that each operation returns.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from engine.core.errors import ContentFiltered, InferenceError, Malformed
from engine.core.task_table import TASKS
from engine.dialects.common.error_body import excerpt
from engine.dialects.openai.errors import FINISH_FAILURES, error_from
from engine.dialects.openai.responses import wrong_response
from engine.media.reader import CONTENT_TYPES, extension_of

_ANSWERS = ("content", "tool_calls", "refusal", "reasoning_content", "reasoning", "audio", "images")


def wrong_reply(task: str, body: dict[str, Any], content: bytes, wall_s: float) -> InferenceError | None:
    """Returns what is wrong with a decoded reply, if anything. `wall_s` is the time now in seconds since the epoch."""
    if task in ("chat", "completion"):
        return _wrong_choices(task, body, content, wall_s)
    if task == "embedding":
        return _wrong_items(body.get("data"), ("embedding",), "embedding", content)
    if task == "response":
        return wrong_response(body, content, wall_s)
    if TASKS[task].gives_images:
        return _wrong_items(body.get("data"), ("b64_json", "url"), "image", content)
    if task == "moderation":
        return _wrong_items(body.get("results"), ("categories",), "result", content)
    if task == "speech":
        audio = body.get("audio")
        sound = audio.get("data") if type(audio) is dict else None
        return (
            None
            if type(sound) is str and sound
            else Malformed(f"HTTP 200: the reply is not an audio: {excerpt(content)}")
        )
    if type(body.get("text")) is not str:
        return Malformed(f"HTTP 200: the reply has no text: {excerpt(content)}")
    return None


def plain_reply(task: str, headers: Mapping[str, str], content: bytes) -> dict[str, Any] | None:
    """The canonical form of a reply that is not JSON; None: it is JSON, or should be. Raises Malformed.

    Speech becomes `audio` with `data` (base64), `format` and `content_type`; a transcript in the form text, srt or vtt
    becomes `text`, as it came.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if task == "speech":
        if kind in ("application/json", "text/html", "text/plain", "text/event-stream"):
            return None
        if not content:
            raise Malformed("HTTP 200: the reply has no audio")
        form = next((form for form, known in CONTENT_TYPES.items() if known == kind), "") or extension_of(content)
        audio = {"data": base64.b64encode(content).decode("ascii"), "format": form}
        return {"object": "audio.speech", "audio": {**audio, "content_type": kind or "application/octet-stream"}}
    if task in ("transcription", "audio-translation") and kind in ("text/plain", "text/vtt", "application/x-subrip"):
        # Some name JSON so; a transcript as text does not begin like this.
        if content.startswith(b'{"'):
            return None
        try:
            return {"text": content.decode("utf-8")}
        except UnicodeDecodeError as error:
            raise Malformed(f"HTTP 200: the text is not UTF-8: {error.reason}") from error
    return None


def is_empty(answer: Any) -> bool:
    """Returns True if a message, delta or text holds no part of an answer."""
    if type(answer) is not dict:
        return not answer
    return not any(answer.get(part) for part in _ANSWERS)


def withheld() -> ContentFiltered:
    """The error for an answer of which a filter left nothing."""
    return ContentFiltered("the provider's content filter withheld the answer", code="content_filter")


def finish_failure(choice: dict[str, Any], wall_s: float) -> InferenceError:
    """The error of a choice that failed."""
    if choice.get("error"):
        return error_from({"error": choice["error"]}, 200, {}, wall_s)
    reason = choice["finish_reason"]
    return FINISH_FAILURES[reason](f"the provider stopped in the middle: finish_reason {reason}", code=reason)


def _wrong_choices(task: str, body: dict[str, Any], content: bytes, wall_s: float) -> InferenceError | None:
    choices = body.get("choices")
    if type(choices) is not list or not choices:
        return Malformed(f"HTTP 200: the reply has no choices: {excerpt(content)}")
    part = "message" if task == "chat" else "text"
    filtered = 0
    for choice in choices:
        if type(choice) is not dict:
            return Malformed(f"HTTP 200: a choice is not an object: {excerpt(content)}")
        reason = choice.get("finish_reason")
        answer = choice.get(part)
        if reason in FINISH_FAILURES or choice.get("error"):
            return finish_failure(choice, wall_s)
        if reason == "content_filter" and is_empty(answer):
            filtered += 1
        elif answer is None or (task == "chat" and type(answer) is not dict):
            return Malformed(f"HTTP 200: a choice has no {part}: {excerpt(content)}")
    return withheld() if filtered == len(choices) else None


def _wrong_items(items: Any, names: tuple[str, ...], what: str, content: bytes) -> InferenceError | None:
    if type(items) is not list or not items:
        return Malformed(f"HTTP 200: the reply has no {what}s: {excerpt(content)}")
    for item in items:
        if type(item) is not dict or not any(item.get(name) for name in names):
            return Malformed(f"HTTP 200: there is something else where a {what} should be: {excerpt(content)}")
    return None
