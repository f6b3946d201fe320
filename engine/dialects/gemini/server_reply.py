"""The canonical reply → Gemini's response, and what whole replies and streams share.

Source: as in `engine.dialects.gemini.reply`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.core.errors import Malformed
from engine.dialects.common.json_body import UNREADABLE

_decode = msgspec.json.Decoder().decode

FINISH_REASONS = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "function_call": "STOP",
    "content_filter": "SAFETY",
}


def wire_response(body: dict[str, Any], model: str | None) -> dict[str, Any]:
    """The response of a canonical reply. Raises Malformed when a call's arguments are no object."""
    candidates = []
    for choice in body["choices"]:
        reason = FINISH_REASONS.get(choice.get("finish_reason"), "STOP")
        candidate = {
            "content": {"parts": wire_parts(choice["message"]), "role": "model"},
            "finishReason": reason,
            "index": choice.get("index") or 0,
        }
        if choice.get("logprobs"):
            candidate["logprobsResult"] = wire_logprobs(choice["logprobs"])
        candidates.append(candidate)
    response = {"candidates": candidates, **response_tail(body, model)}
    if body.get("usage"):
        response["usageMetadata"] = wire_usage(body["usage"])
    return response


def response_tail(body: dict[str, Any], model: str | None) -> dict[str, Any]:
    """Returns who says it."""
    tail = {"modelVersion": body.get("model") or model or ""}
    return {**tail, "responseId": body["id"]} if body.get("id") else tail


def wire_parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a canonical message or delta, without the calls of a delta, which come in pieces."""
    parts: list[dict[str, Any]] = []
    thought = message.get("reasoning_content") or message.get("reasoning")
    if thought:
        parts.append({"text": thought, "thought": True})
    content = message.get("content") or message.get("refusal")
    if isinstance(content, str):
        parts.append({"text": content})
    elif content:
        parts.extend({"text": part["text"]} for part in content if part.get("type") == "text")
    signature = _signature(message)
    if signature:
        if not parts or parts[-1].get("thought"):
            parts.append({"text": ""})
        parts[-1]["thoughtSignature"] = signature
    for image in message.get("images") or ():
        kind, _, data = image["image_url"]["url"].removeprefix("data:").partition(";base64,")
        parts.append({"inlineData": {"mimeType": kind, "data": data}})
    audio = message.get("audio")
    if audio and audio.get("data"):
        parts.append({"inlineData": {"mimeType": "audio/L16;codec=pcm;rate=24000", "data": audio["data"]}})
    for call in message.get("tool_calls") or ():
        if "index" not in call:
            function = call["function"]
            parts.append(wire_call(call.get("id"), function["name"], function.get("arguments") or "", _signature(call)))
    return parts


def wire_call(call_id: str | None, name: str | None, arguments: str, signature: str | None) -> dict[str, Any]:
    """The part of a call. Raises Malformed when its arguments are no object."""
    try:
        given = _decode(arguments or "{}")
    except UNREADABLE as error:
        raise Malformed(f"the model's call of {name} has arguments that are not JSON: {error}") from error
    if type(given) is not dict:
        raise Malformed(f"the model's call of {name} has arguments that are not an object")
    call = {"id": call_id, "name": name, "args": given} if call_id else {"name": name, "args": given}
    part: dict[str, Any] = {"functionCall": call}
    return {**part, "thoughtSignature": signature} if signature else part


def _signature(source: dict[str, Any]) -> str | None:
    google = (source.get("extra_content") or {}).get("google") or {}
    signature = google.get("thought_signature")
    return signature if type(signature) is str else None


def wire_logprobs(logprobs: dict[str, Any]) -> dict[str, Any]:
    """The `logprobsResult` of canonical log probabilities."""
    content = logprobs.get("content") or ()
    return {
        "topCandidates": [
            {"candidates": [_logprob(top) for top in each.get("top_logprobs") or ()]} for each in content
        ],
        "chosenCandidates": [_logprob(each) for each in content],
    }


def _logprob(said: dict[str, Any]) -> dict[str, Any]:
    return {"token": said.get("token"), "logProbability": said.get("logprob")}


def wire_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """The wire's usage: thoughts are no part of the candidates' tokens."""
    prompt, answer = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    total_in, total_out = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    thoughts = answer.get("reasoning_tokens") or 0
    said: dict[str, Any] = {
        "promptTokenCount": total_in,
        "candidatesTokenCount": max(0, total_out - thoughts),
        "totalTokenCount": total_in + total_out,
    }
    if prompt.get("cached_tokens") is not None:
        said["cachedContentTokenCount"] = prompt["cached_tokens"]
    if thoughts:
        said["thoughtsTokenCount"] = thoughts
    for details, name, total in (
        (prompt, "promptTokensDetails", total_in),
        (answer, "candidatesTokensDetails", total_out - thoughts),
    ):
        sound = details.get("audio_tokens")
        if sound is not None:
            said[name] = [
                {"modality": "TEXT", "tokenCount": max(0, total - sound)},
                {"modality": "AUDIO", "tokenCount": sound},
            ]
    return said


def wire_embeddings(body: dict[str, Any], many: bool) -> dict[str, Any]:
    """The response of a canonical embedding reply: `embeddings`, or `embedding` for one input."""
    rows = [{"values": item["embedding"]} for item in body["data"]]
    response: dict[str, Any] = {"embeddings": rows} if many else {"embedding": rows[0]}
    usage = body.get("usage")
    if usage:
        response["usageMetadata"] = {"promptTokenCount": usage.get("prompt_tokens") or 0}
    return response
