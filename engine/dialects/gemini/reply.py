"""Gemini's response → the canonical reply, and what whole replies and streams share.

Source: the Gemini API's reference, "Generating content" (GenerateContentResponse, Candidate, UsageMetadata,
LogprobsResult) and "Embeddings"; its guides "Thinking", "Thought signatures" and "OpenAI compatibility".
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

import msgspec

from engine.core.errors import InferenceError, Malformed, Truncated
from engine.core.usage import MOST_TOKENS, Usage, token_count
from engine.dialects.common.error_body import excerpt
from engine.dialects.gemini.errors import FILTERED, FINISH_FAILURES, blocked, filtered, finish_failure

_encode = msgspec.json.Encoder().encode

FINISH_REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",  # The limit of one response was reached; the answer has no end.
    **dict.fromkeys(FILTERED, "content_filter"),
}
"""Finish reason → canonical. Of the others some are failures; one that is not known is a failure of an answer that is
empty, and the end of one that is not."""


def chat_reply(response: dict[str, Any], content: bytes, created: int) -> tuple[dict[str, Any], Usage | None]:
    """The canonical reply of a decoded response, and its usage. Raises InferenceError, with the usage."""
    metadata: Any = response.get("usageMetadata")
    usage = tokens_of(metadata) if type(metadata) is dict else None
    try:
        body = _chat_body(response, content, created)
    except InferenceError as error:
        error.usage = usage
        raise
    if usage is None:
        return body, None
    body["usage"] = usage_of(metadata)
    return body, usage


def _chat_body(response: dict[str, Any], content: bytes, created: int) -> dict[str, Any]:
    candidates = response.get("candidates")
    if not candidates:
        feedback = response.get("promptFeedback")
        if type(feedback) is dict and feedback.get("blockReason"):
            raise blocked(feedback)
        raise Malformed(f"HTTP 200: the reply has no candidates: {excerpt(content)}")
    try:
        choices = [_choice(candidate, index, response) for index, candidate in enumerate(candidates)]
    except (KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"HTTP 200: a candidate is not as documented ({error!r}): {excerpt(content)}") from error
    if all(choice["finish_reason"] == "content_filter" and is_empty(choice["message"]) for choice in choices):
        raise filtered(candidates[0])
    return {
        "id": response.get("responseId"),
        "object": "chat.completion",
        "created": created,
        "model": response.get("modelVersion"),
        "choices": choices,
    }


def _choice(candidate: dict[str, Any], index: int, response: dict[str, Any]) -> dict[str, Any]:
    content = candidate.get("content")
    parts = content.get("parts") if content else None
    answer = answer_of(parts, response.get("responseId"), 0) if parts else {}
    message: dict[str, Any] = {"role": "assistant", "content": answer.pop("content", None)}
    if message["content"] is None and not answer.get("tool_calls"):
        message["content"] = ""
    message.update(answer)
    place = candidate.get("index")
    choice = {
        "index": index if place is None else place,
        "message": message,
        "finish_reason": _finish(candidate, message),
    }
    result = candidate.get("logprobsResult")
    if result is not None:
        choice["logprobs"] = logprobs_of(result)
    return choice


def _finish(candidate: dict[str, Any], message: dict[str, Any]) -> str:
    reason = candidate.get("finishReason")
    if reason is None:
        raise Truncated("HTTP 200: the reply has a candidate without a finishReason: its answer has no end", status=200)
    finish = FINISH_REASONS.get(reason) if type(reason) is str else None
    if finish is None:
        failure = failure_of(candidate, is_empty(message))
        if failure is not None:
            raise failure
        finish = finish_of(reason)
    return "tool_calls" if finish == "stop" and "tool_calls" in message else finish


def failure_of(candidate: dict[str, Any], empty: bool) -> InferenceError | None:
    """The failure that a candidate's finish reason is, if any. `empty`: nothing of an answer came with it."""
    reason = candidate["finishReason"]
    known = type(reason) is str and (reason in FINISH_REASONS or (not empty and reason not in FINISH_FAILURES))
    return None if known else finish_failure(candidate)


def finish_of(reason: str) -> str:
    """The canonical finish reason; one that is not known is passed on in small letters."""
    return FINISH_REASONS.get(reason) or reason.lower()


def answer_of(parts: list[dict[str, Any]], response_id: Any, calls_before: int) -> dict[str, Any]:
    """The fields of a canonical message or delta that parts make. Parts of the server's own tools, which no canonical
    request can request, are left out. A call that comes without an id gets one from the response's."""
    if len(parts) == 1 and len(parts[0]) == 1:
        text = parts[0].get("text")
        if text is not None:
            return {"content": text} if text else {}
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    answer: dict[str, Any] = {}
    for part in parts:
        text = part.get("text")
        if text is not None:
            (thoughts if part.get("thought") else texts).append(text)
            if part.get("thoughtSignature") is not None:
                answer["extra_content"] = signed(part["thoughtSignature"])
        elif part.get("functionCall") is not None:
            calls.append(_call(part, response_id, calls_before + len(calls)))
        elif part.get("inlineData") is not None:
            _add_media(part["inlineData"], answer)
    content = "".join(texts)
    if content:
        answer["content"] = content
    if thoughts:
        answer["reasoning_content"] = "".join(thoughts)
    if calls:
        answer["tool_calls"] = calls
    return answer


def signed(signature: str) -> dict[str, Any]:
    """Returns the place of a thought's signature, as in Google's own OpenAI wire."""
    return {"google": {"thought_signature": signature}}


def is_empty(answer: dict[str, Any]) -> bool:
    """Returns True if a message or delta holds no part of an answer."""
    return not any(answer.get(part) for part in ("content", "tool_calls", "reasoning_content", "images", "audio"))


def _call(part: dict[str, Any], response_id: Any, index: int) -> dict[str, Any]:
    said = part["functionCall"]
    if type(said["name"]) is not str:
        raise TypeError("a functionCall without a name")
    call = {
        "id": said.get("id") or f"call_{response_id or 'gemini'}_{index}",
        "type": "function",
        "function": {"name": said["name"], "arguments": _encode(said.get("args") or {}).decode()},
    }
    if part.get("thoughtSignature") is not None:
        call["extra_content"] = signed(part["thoughtSignature"])
    return call


def _add_media(blob: dict[str, Any], answer: dict[str, Any]) -> None:
    """Makes audio `audio`, as OpenAI has it, and images `images`, as servers of image models do there."""
    kind, data = blob["mimeType"], blob["data"]
    if type(data) is not str:
        raise TypeError("inlineData without data")
    if kind.startswith("audio/"):
        said = answer.setdefault("audio", {"data": ""})
        said["data"] = b64encode(b64decode(said["data"]) + b64decode(data)).decode() if said["data"] else data
    else:
        image = {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
        answer.setdefault("images", []).append(image)


def logprobs_of(result: dict[str, Any]) -> dict[str, Any]:
    """The canonical log probabilities of a `logprobsResult`."""
    tops = result.get("topCandidates") or ()
    content = []
    for index, chosen in enumerate(result.get("chosenCandidates") or ()):
        top = tops[index].get("candidates") or () if index < len(tops) else ()
        content.append({**_logprob(chosen), "top_logprobs": [_logprob(each) for each in top]})
    return {"content": content, "refusal": None}


def _logprob(said: dict[str, Any]) -> dict[str, Any]:
    token = said.get("token") or ""
    return {"token": token, "logprob": said.get("logProbability") or 0.0, "bytes": list(token.encode())}


def usage_of(metadata: dict[str, Any]) -> dict[str, Any]:
    """The canonical usage object. Gemini counts thoughts, and what tools put into the prompt, apart."""
    prompt = _count(metadata, "promptTokenCount") + _count(metadata, "toolUsePromptTokenCount")
    thoughts = _count(metadata, "thoughtsTokenCount")
    answer = _count(metadata, "candidatesTokenCount") + thoughts
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    details: dict[str, int] = {}
    if metadata.get("cachedContentTokenCount") is not None:
        details["cached_tokens"] = _count(metadata, "cachedContentTokenCount")
    _add_audio(metadata.get("promptTokensDetails"), details)
    if details:
        usage["prompt_tokens_details"] = details
    details = {"reasoning_tokens": thoughts} if thoughts else {}
    _add_audio(metadata.get("candidatesTokensDetails"), details)
    if details:
        usage["completion_tokens_details"] = details
    return usage


def tokens_of(metadata: dict[str, Any]) -> Usage:
    """The tokens of a `usageMetadata`. A stream has one with each event, hence no check of each count by itself."""
    get = metadata.get
    prompt, answer = get("promptTokenCount") or 0, get("candidatesTokenCount") or 0
    tools, thoughts = get("toolUsePromptTokenCount") or 0, get("thoughtsTokenCount") or 0
    cached = get("cachedContentTokenCount") or 0
    counts = type(prompt) is type(answer) is type(tools) is type(thoughts) is type(cached) is int
    if (
        counts
        and prompt >= 0
        and answer >= 0
        and tools >= 0
        and thoughts >= 0
        and cached >= 0
        and prompt + answer + tools + thoughts < MOST_TOKENS
    ):
        found = Usage(prompt + tools, answer + thoughts, cached, thoughts)
    else:
        said = usage_of(metadata)
        cached, thoughts = _count(metadata, "cachedContentTokenCount"), _count(metadata, "thoughtsTokenCount")
        found = Usage(said["prompt_tokens"], said["completion_tokens"], cached, thoughts)
    # A prompt of nothing but text has one entry, and that says so.
    if "promptTokensDetails" in metadata:
        found.audio_input_tokens, found.image_input_tokens = _modal(metadata["promptTokensDetails"])
    if "candidatesTokensDetails" in metadata:
        found.audio_output_tokens, found.image_output_tokens = _modal(metadata["candidatesTokensDetails"])
    return found


def _modal(details: Any) -> tuple[int, int]:
    """Tokens of audio and of images."""
    sound = pictures = 0
    for each in details if type(details) is list else ():
        kind = each.get("modality") if type(each) is dict else None
        if kind == "AUDIO":
            sound += _count(each, "tokenCount")
        elif kind == "IMAGE":
            pictures += _count(each, "tokenCount")
    return sound, pictures


def _add_audio(details: Any, said: dict[str, int]) -> None:
    for each in details if type(details) is list else ():
        if type(each) is dict and each.get("modality") == "AUDIO":
            said["audio_tokens"] = _count(each, "tokenCount")


def _count(source: dict[str, Any], name: str) -> int:
    return token_count(source.get(name))


def embedding_reply(response: dict[str, Any], content: bytes) -> tuple[dict[str, Any], Usage | None]:
    """The canonical reply of `embedContent` or `batchEmbedContents`. Raises Malformed."""
    one, many = response.get("embedding"), response.get("embeddings")
    rows = many if type(many) is list else [one] if one is not None else []
    if not rows:
        raise Malformed(f"HTTP 200: the reply has no embeddings: {excerpt(content)}")
    data = []
    for index, row in enumerate(rows):
        values = row.get("values") if type(row) is dict else None
        if not values:
            raise Malformed(f"HTTP 200: an embedding is missing: {excerpt(content)}")
        data.append({"object": "embedding", "index": index, "embedding": values})
    body: dict[str, Any] = {"object": "list", "data": data}
    if "modelVersion" in response:
        body["model"] = response["modelVersion"]
    metadata = response.get("usageMetadata")
    if type(metadata) is not dict:
        return body, None
    prompt = _count(metadata, "promptTokenCount")
    body["usage"] = {"prompt_tokens": prompt, "total_tokens": prompt}
    return body, Usage(prompt)
