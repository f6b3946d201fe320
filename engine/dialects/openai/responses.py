"""Responses on the OpenAI wire: what a whole one is, and how one fails.

Source: OpenAI's API reference, "Responses", the response object and its `status`, `error` and `incomplete_details`.
"""

from __future__ import annotations

from typing import Any

from engine.core.errors import Cancelled, ContentFiltered, InferenceError, Malformed, ServerFailed
from engine.dialects.common.error_body import excerpt
from engine.dialects.openai.errors import error_from

_WHOLE = ("completed", "incomplete", None)


def wrong_response(body: dict[str, Any], content: bytes, wall_s: float) -> InferenceError | None:
    """Returns what is wrong with a whole response, if anything."""
    status = body.get("status")
    if status in ("failed", "cancelled") or is_withheld(body):
        return failure_of(body, content, wall_s)
    if status not in _WHOLE:
        return Malformed(f"HTTP 200: the response is not finished (status {status}): {excerpt(content)}")
    if type(body.get("output")) is not list:
        return Malformed(f"HTTP 200: the reply has no output: {excerpt(content)}")
    return None


def is_withheld(response: dict[str, Any]) -> bool:
    """Returns True if a content filter left nothing of the answer."""
    details = response.get("incomplete_details")
    if response.get("status") != "incomplete" or type(details) is not dict:
        return False
    return details.get("reason") == "content_filter" and not _says_something(response.get("output"))


def failure_of(response: Any, content: bytes, wall_s: float) -> InferenceError:
    """The typed error of a response that failed."""
    if type(response) is not dict:
        return Malformed(f"a failed response does not say why: {excerpt(content)}")
    if response.get("error"):
        return error_from({"error": response["error"]}, 200, {}, wall_s)
    if response.get("status") == "cancelled":
        return Cancelled("the response was cancelled at the provider")
    if is_withheld(response):
        return ContentFiltered("the provider's content filter withheld the answer", code="content_filter")
    return ServerFailed(f"the response failed, and does not say why: {excerpt(content)}")


def _says_something(output: Any) -> bool:
    for item in output if type(output) is list else ():
        if type(item) is not dict:
            continue
        if item.get("type") not in ("message", "reasoning"):
            return True  # a call of a tool
        parts = item.get("content")
        if any(part.get("text") or part.get("refusal") for part in parts or () if type(part) is dict):
            return True
    return False
