"""Answers of Text Generation Inference in canonical words. Source: the server's OpenAPI document, `GenerateResponse`,
`Details`, `StreamResponse`; its router (router/src/server.rs), also for the headers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from engine.core.errors import Malformed
from engine.core.server_info import ServerInfo
from engine.core.usage import Usage
from engine.dialects.client import Reply
from engine.dialects.common.error_body import excerpt
from engine.dialects.common.json_body import lenient, positive, usage_body
from engine.dialects.discovery import DiscoveryReply

_encode = msgspec.json.Encoder().encode
_WAITING = re.compile(rb"^tgi_queue_size (\d+)", re.MULTILINE)
_REASONS = {"eos_token": "stop", "stop_sequence": "stop"}


def whole(body: Any, headers: Mapping[str, str], content: bytes, wall: Callable[[], float]) -> Reply:
    """The canonical reply of a completion. Raises Malformed."""
    if type(body) is list and len(body) == 1:
        body = body[0]  # the server's root path answers so
    if type(body) is not dict or type(body.get("generated_text")) is not str:
        raise Malformed(f"HTTP 200: the reply has no generated_text: {excerpt(content)}")
    details = body.get("details")
    if details is not None and type(details) is not dict:
        raise Malformed(f"HTTP 200: details is not an object: {excerpt(content)}")
    details = details or {}
    choice: dict[str, Any] = {"index": 0, "text": body["generated_text"]}
    if details.get("top_tokens"):
        try:
            choice["logprobs"] = logprobs(details["tokens"], details["top_tokens"], 0)
        except (KeyError, TypeError, AttributeError) as error:
            raise Malformed(f"HTTP 200: the tokens can't be read: {excerpt(content)}") from error
    choice["finish_reason"] = finish_reason(details.get("finish_reason"))
    usage = _usage(headers.get("x-prompt-tokens"), details)
    canonical = {"id": reply_id(wall), **head(wall), "choices": [choice]}
    if usage is not None:
        canonical["usage"] = usage_body(usage)
    return Reply(canonical, usage)


def mend_chat(body: dict[str, Any], part: str, called: bool = False) -> bool:
    """Brings a chat's reply or chunk, in place, into the form that OpenAI gives it: finish reasons and arguments.
    `part` is message or delta; `called` says that an earlier chunk called a tool. Whether one was called by now."""
    for choice in body.get("choices") or ():
        message = choice.get(part)
        calls = message.get("tool_calls") if type(message) is dict else None
        reason = choice.get("finish_reason")
        if type(reason) is str and reason in _REASONS:
            choice["finish_reason"] = reason = _REASONS[reason]
        called = called or bool(calls)
        if called and reason == "stop":
            choice["finish_reason"] = "tool_calls"
        for call in calls if type(calls) is list else ():
            function = call.get("function") if type(call) is dict else None
            if type(function) is dict and type(function.get("arguments")) is dict:
                function["arguments"] = _encode(function["arguments"]).decode()  # servers before 3.1
    return called


def server_info(answers: Sequence[DiscoveryReply]) -> ServerInfo:
    """From /info, /health and /metrics."""
    about, health, metrics = answers
    info = lenient(about.content) if about.status == 200 else None
    if type(info) is not dict:
        return ServerInfo()
    # Servers before 2.1 call the first one max_input_length.
    prompt = positive(info.get("max_input_tokens") or info.get("max_input_length"))
    whole = positive(info.get("max_total_tokens"))
    said = [f"TGI {info.get('version') or ''}".strip()]
    said += [f"{prompt} tokens a prompt"] if prompt else []
    said += [f"{whole} tokens with the answer"] if whole else []
    said += ["healthy" if health.status == 200 else "not healthy"]
    waiting = _WAITING.search(metrics.content) if metrics.status == 200 else None
    said += [f"{waiting[1].decode()} requests wait"] if waiting else []
    return ServerInfo(context_length=whole, max_prompt_tokens=prompt, found=", ".join(said))


def logprobs(tokens: list[Any], likeliest: list[Any], offset: int) -> dict[str, Any]:
    """A completion's log probabilities; `offset` is the number of characters before them. Special tokens, such as the
    end of the text, are no part of it."""
    found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for token, others in zip(tokens, likeliest, strict=False):
        if token.get("special"):
            continue
        found["tokens"].append(token["text"])
        found["token_logprobs"].append(token.get("logprob"))
        found["top_logprobs"].append(
            {text: each.get("logprob") for each in others if type(text := each["text"]) is str}
        )
        found["text_offset"].append(offset)
        offset += len(token["text"])
    return found


def finish_reason(reason: Any) -> str:
    return _REASONS.get(reason, reason) if type(reason) is str else "stop"


def head(wall: Callable[[], float]) -> dict[str, Any]:
    """Returns what the server does not say of a reply and all of its chunks share."""
    return {"object": "text_completion", "created": int(wall()), "model": ""}


def reply_id(wall: Callable[[], float]) -> str:
    """An id, made of the time, for the server gives none."""
    return f"cmpl-{int(wall() * 1e6)}"


def usage_of_stream(details: dict[str, Any]) -> Usage | None:
    return _usage(details.get("input_length"), details)


def _usage(prompt: Any, details: dict[str, Any]) -> Usage | None:
    if type(prompt) is str:
        prompt = int(prompt[:18]) if prompt.isascii() and prompt.isdigit() else None
    answer = details.get("generated_tokens")
    if type(prompt) is not int or type(answer) is not int:
        return None  # half a count would pass for a whole one
    return Usage(prompt, answer)
