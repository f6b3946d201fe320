"""Right documents of each wire: what mutations begin with."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from engine.core import errors
from engine.core.media_access import Media
from engine.core.registry import SERVER_DIALECTS
from engine.core.stream import Chunk
from engine.core.usage import Usage
from engine.dialects.server import ClientCall

CLIENTS = ("openai", "anthropic", "gemini", "ollama", "tgi", "tei", "kserve", "kserve_grpc", "predict", "opea")
_TOOL = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": PIXEL}}]},
    {"role": "assistant", "content": "", "tool_calls": [_CALL], "reasoning_content": "hm"},
    {"role": "tool", "tool_call_id": "c1", "content": "b"},
    {"role": "user", "content": "And now?"},
]
REQUESTS: dict[str, list[dict[str, Any]]] = {
    "chat": [
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "temperature": 0.5,
            "max_tokens": 5,
            "stop": ["x"],
            "seed": 1,
        },
        {
            "messages": MESSAGES,
            "tools": [{"type": "function", "function": _TOOL}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": _TOOL["parameters"]}},
            "logprobs": True,
            "top_logprobs": 2,
            "n": 2,
            "reasoning_effort": "low",
            "stream_options": {"include_usage": True},
            "logit_bias": {"5": 1},
            "metadata": {"a": "b"},
        },
    ],
    "completion": [{"prompt": "Hi", "max_tokens": 5, "logprobs": 1, "echo": False}, {"prompt": [[1, 2]], "n": 1}],
    "embedding": [{"input": ["a", "b"], "dimensions": 2, "encoding_format": "float"}, {"input": "a"}],
    "rerank": [{"query": "q", "documents": ["a", {"text": "b"}], "top_n": 1, "return_documents": True}],
    "response": [
        {"input": "Hi", "max_output_tokens": 5},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}], "instructions": "Be brief."},
    ],
    "moderation": [{"input": ["x"]}],
    "image": [{"prompt": "x", "n": 1, "size": "64x64"}],
    "image-edit": [{"prompt": "x", "image": {"data": "aGk=", "filename": "a.png"}, "n": 1}],
    "speech": [{"input": "x", "voice": "v", "response_format": "wav"}],
    "transcription": [{"file": {"data": "aGk=", "filename": "a.wav"}, "language": "en", "include": ["logprobs"]}],
    "audio-translation": [{"file": {"data": "aGk=", "filename": "a.wav"}, "prompt": "x"}],
    "token-count": [{"messages": MESSAGES[:2]}],
    "sentence-similarity": [{"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {"truncate": True}}],
    "sparse-embedding": [{"inputs": ["a"], "parameters": {"truncate": True}}],
    "token-embedding": [{"inputs": "a"}],
    "text-classification": [{"inputs": [{"text": "a", "text_pair": "b"}], "parameters": {"top_k": 1}}],
    "tensors": [
        {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}], "parameters": {"a": 1}}
    ],
    "translation": [{"inputs": "a", "parameters": {"src_lang": "en", "tgt_lang": "de"}}],
    "summarization": [{"inputs": "a", "parameters": {"max_length": 5}}],
    "retrieval": [{"inputs": "a", "parameters": {"k": 2}}],
    "dataprep": [{"inputs": {"operation": "get"}}, {"inputs": {"links": ["http://x"]}}],
    "question-answering": [{"inputs": {"question": "q", "context": "c"}, "parameters": {"top_k": 1}}],
    "zero-shot-classification": [{"inputs": "a", "parameters": {"candidate_labels": ["b", "c"]}}],
}
"""By task: bodies in the canonical form."""
_USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 2,
    "total_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 1},
    "cost": 0.1,
}
_LOGPROBS = {
    "content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "a", "logprob": -1.0}]}]
}
_MESSAGE = {"role": "assistant", "content": "fine", "tool_calls": [_CALL], "reasoning_content": "hm"}
REPLIES: dict[str, list[dict[str, Any]]] = {
    "chat": [
        {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": _MESSAGE, "logprobs": _LOGPROBS}],
            "usage": _USAGE,
        }
    ],
    "completion": [
        {
            "id": "x",
            "object": "text_completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "text": "fine", "finish_reason": "length", "logprobs": None}],
            "usage": _USAGE,
        }
    ],
    "embedding": [{"object": "list", "data": [{"index": 0, "embedding": [0.5, 1.0]}], "model": "m", "usage": _USAGE}],
    "rerank": [
        {"object": "list", "model": "m", "results": [{"index": 0, "relevance_score": 0.5, "document": {"text": "a"}}]}
    ],
    "response": [
        {
            "id": "r",
            "object": "response",
            "status": "completed",
            "model": "m",
            "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}],
            "incomplete_details": {"reason": "max_output_tokens"},
            "error": None,
            "usage": {"input_tokens": 1, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}},
        }
    ],
    "moderation": [
        {"id": "x", "model": "m", "results": [{"flagged": True, "categories": {"hate": True}, "category_scores": {}}]}
    ],
    "image": [{"created": 1, "data": [{"b64_json": "aGk=", "revised_prompt": "x"}], "usage": {"input_tokens": 1}}],
    "image-edit": [{"created": 1, "data": [{"url": "http://x/y.png"}]}],
    "speech": [{"object": "audio.speech", "model": "m", "audio": {"data": "aGk=", "format": "wav"}}],
    "transcription": [
        {"text": "x", "segments": [{"start": 0.0, "end": 1.0}], "usage": {"type": "duration", "seconds": 1}}
    ],
    "audio-translation": [{"text": "x"}],
    "token-count": [{"object": "token-count", "model": "m", "input_tokens": 5}],
    "sentence-similarity": [{"outputs": [0.5], "model": "m"}],
    "sparse-embedding": [{"outputs": [[{"index": 1, "value": 0.5}]], "model": "m"}],
    "token-embedding": [{"outputs": [[[0.5, 1.0]]], "model": "m"}],
    "text-classification": [{"outputs": [[{"label": "a", "score": 0.5}]], "model": "m"}],
    "tensors": [{"outputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}], "model": "m"}],
    "translation": [{"outputs": [{"translation_text": "a"}], "model": "m"}],
    "summarization": [{"outputs": [{"summary_text": "a"}], "model": "m"}],
    "retrieval": [{"outputs": [{"text": "a", "score": 0.5, "id": "1", "metadata": {}}], "model": "m"}],
    "dataprep": [{"outputs": [{"status": "ok"}], "model": "m"}],
}
"""By task: replies in the canonical form."""
WIRE: dict[tuple[str, str], list[Any]] = {
    ("openai", "rerank"): [{"results": [{"index": 0, "relevance_score": 0.5}], "usage": {"total_tokens": 3}}],
    ("openai", "sentence-similarity"): [{"data": [{"index": 0, "score": 0.5}], "usage": _USAGE}],
    ("gemini", "chat"): [
        {
            "candidates": [
                {
                    "content": {
                        "parts": [
                            {"text": "hm", "thought": True, "thoughtSignature": "s"},
                            {"text": "fine"},
                            {"functionCall": {"name": "f", "args": {"a": "b"}, "id": "c"}},
                            {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
                        ],
                        "role": "model",
                    },
                    "finishReason": "STOP",
                    "index": 0,
                    "safetyRatings": [{"category": "HATE", "blocked": False}],
                    "logprobsResult": {
                        "chosenCandidates": [{"token": "a", "logProbability": -0.5}],
                        "topCandidates": [{"candidates": [{"token": "a", "logProbability": -0.5}]}],
                    },
                }
            ],
            "promptFeedback": {"blockReason": None},
            "usageMetadata": {
                "promptTokenCount": 7,
                "candidatesTokenCount": 2,
                "thoughtsTokenCount": 1,
                "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 1}],
            },
            "responseId": "r",
            "modelVersion": "m",
        }
    ],
    ("anthropic", "chat"): [
        {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "fine", "citations": None},
                {"type": "tool_use", "id": "c", "name": "f", "input": {"a": "b"}},
            ],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 7, "output_tokens": 2, "cache_creation": {"ephemeral_1h_input_tokens": 1}},
        }
    ],
    ("ollama", "chat"): [
        {
            "model": "m",
            "created_at": "2026-12-01T00:00:00Z",
            "message": {
                "role": "assistant",
                "content": "x",
                "thinking": "hm",
                "tool_calls": [{"function": {"name": "f", "arguments": {}}}],
            },
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 7,
            "eval_count": 2,
            "logprobs": [{"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "a", "logprob": -1.0}]}],
        }
    ],
    ("tgi", "completion"): [
        {
            "generated_text": "fine",
            "details": {
                "finish_reason": "length",
                "generated_tokens": 1,
                "prefill": [{"id": 1, "text": "a", "logprob": None}],
                "tokens": [{"id": 1, "text": "a", "logprob": -1.0, "special": False}],
                "top_tokens": [[{"id": 1, "text": "a", "logprob": -1.0}]],
            },
        }
    ],
    ("kserve", "tensors"): [
        {"model_name": "m", "id": "1", "outputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}]}
    ],
    ("predict", "tensors"): [{"outputs": {"x": [[1.0, 2.0]]}}, {"predictions": [[1.0, 2.0]]}],
    ("opea", "rerank"): [{"reranked_docs": [{"text": "a", "score": 0.5}]}],
    ("opea", "moderation"): [{"text": "x", "downstream_black_list": []}],
    ("opea", "retrieval"): [{"retrieved_docs": [{"text": "a", "id": "1"}], "initial_query": "q"}],
    ("opea", "translation"): [{"choices": [{"message": {"content": "x"}}]}],
    ("opea", "dataprep"): [{"status": 200, "message": "ok"}, [{"name": "a", "id": "a", "type": "File"}]],
}
"""By dialect and task: replies in the wire's own form, besides those that its server direction writes."""
_DELTAS: tuple[dict[str, Any], ...] = (
    {"role": "assistant", "content": ""},
    {"reasoning_content": "hm"},
    {"content": "fine"},
    {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a'}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '": 1}'}}]},
)
_CREATED = {"id": "r", "object": "response", "status": "in_progress", "output": []}
_EVENTS: dict[str, list[dict[str, Any]]] = {
    "response": [
        {"type": "response.created", "response": _CREATED},
        {"type": "response.output_text.delta", "delta": "x", "output_index": 0, "item_id": "i"},
        {"type": "response.completed", "response": REPLIES["response"][0]},
    ],
    "transcription": [
        {"type": "transcript.text.delta", "delta": "x", "logprobs": []},
        {"type": "transcript.text.done", "text": "x", "usage": {"type": "tokens", "input_tokens": 1}},
    ],
    "image": [
        {"type": "image_generation.partial_image", "b64_json": "aGk=", "partial_image_index": 0},
        {"type": "image_generation.completed", "b64_json": "aGk=", "usage": {"input_tokens": 1}},
    ],
    "speech": [
        {"type": "speech.audio.delta", "audio": "aGk="},
        {"type": "speech.audio.done", "usage": {"input_tokens": 1, "output_tokens": 2}},
    ],
}
_VLLM_TRANSCRIPT = [{"choices": [{"delta": {"content": "x"}}]}, {"choices": [], "usage": _USAGE}]
STREAMS: dict[tuple[str, str], list[Any]] = {
    ("gemini", "chat"): [
        {
            **WIRE["gemini", "chat"][0],
            "candidates": [{**WIRE["gemini", "chat"][0]["candidates"][0], "finishReason": None}],
        },
        WIRE["gemini", "chat"][0],
    ],
    ("anthropic", "chat"): [
        {"type": "message_start", "message": {**WIRE["anthropic", "chat"][0], "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "c", "name": "f", "input": {}},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "ping"},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "fine"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ],
    ("ollama", "chat"): [
        {**WIRE["ollama", "chat"][0], "done": False},
        WIRE["ollama", "chat"][0],
    ],
    ("tgi", "completion"): [
        {
            "index": 1,
            "token": {"id": 1, "text": "x", "logprob": -1.0, "special": False},
            "top_tokens": [{"text": "x", "logprob": -1.0}],
        },
        {
            "index": 2,
            "token": {"id": 1, "text": "y", "logprob": -1.0, "special": True},
            "generated_text": "xy",
            "details": {"finish_reason": "length", "generated_tokens": 2, "input_length": 3},
        },
    ],
    **{("openai", task): list(events) for task, events in _EVENTS.items()},
    ("openai", "audio-translation"): [*_VLLM_TRANSCRIPT, b"[DONE]"],
}
"""By dialect and task: the events of a stream; those of choices are made by the server directions."""


def chunks(task: str) -> list[Chunk]:
    """A canonical stream of a task."""
    if task not in ("chat", "completion"):
        return [Chunk(body) for body in _EVENTS.get(task, ())]
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    deltas = _DELTAS if task == "chat" else ({"content": "fi"}, {"content": "ne"})
    made = [{"delta": delta} if task == "chat" else {"text": delta["content"]} for delta in deltas]
    bodies: list[dict[str, Any]] = [{**head, "choices": [{"index": 0, **part, "finish_reason": None}]} for part in made]
    end = {"delta": {}} if task == "chat" else {"text": ""}
    bodies.append({**head, "choices": [{"index": 0, **end, "finish_reason": "stop"}]})
    return [*map(Chunk, bodies), Chunk({**head, "choices": [], "usage": _USAGE}, Usage(7, 2))]


def call_of(task: str, stream: bool = False) -> ClientCall:
    return ClientCall(task, dict(REQUESTS.get(task, [{}])[0]), stream, "m", None)


def wire_replies(dialect: str, task: str) -> list[Any]:
    """Right replies of a wire to a task, decoded."""
    found = list(WIRE.get((dialect, task), ()))
    server = SERVER_DIALECTS.get("openai" if (dialect, task) == ("tgi", "chat") else dialect)()
    for body in REPLIES.get(task, ()):
        # Some forms of a task are another server direction's.
        with contextlib.suppress(errors.InferenceError, msgspec.DecodeError, AttributeError, LookupError, ValueError):
            found.append(msgspec.json.decode(server.reply(call_of(task), body)))
    return found


def wire_streams(dialect: str, task: str) -> list[list[Any]]:
    """Right streams of a wire: their events, decoded; bytes for what is not JSON."""
    found = [STREAMS[dialect, task]] if (dialect, task) in STREAMS else []
    if task not in ("chat", "completion"):
        return found
    encoder = SERVER_DIALECTS.get("openai" if (dialect, task) == ("tgi", "chat") else dialect)().stream_encoder(
        call_of(task, stream=True)
    )
    sent = b"".join(encoder.chunk(chunk) for chunk in chunks(task)) + encoder.end()
    events: list[Any] = []
    for line in sent.split(b"\n"):
        payload = line.removeprefix(b"data:").strip()
        if line.startswith((b"data:", b"{")):
            try:
                events.append(msgspec.json.decode(payload))
            except msgspec.DecodeError:
                events.append(payload)
    return [*found, events]


def event(dialect: str, payload: Any) -> bytes:
    """An event on the wire."""
    content = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
    if dialect == "ollama":
        return content + b"\n"
    name = b""
    if dialect == "anthropic" and isinstance(payload, dict) and isinstance(payload.get("type"), str):
        name = b"event: " + payload["type"].encode().replace(b"\n", b"") + b"\n"
    return name + b"data: " + content.replace(b"\n", b"\\n") + b"\n\n"


def with_media(body: dict[str, Any]) -> dict[str, Any]:
    """A body whose files were read, as a dialect gets it."""
    return {
        name: Media(b"hi", "a.wav", "audio/wav") if name in ("file", "image") and isinstance(value, dict) else value
        for name, value in body.items()
    }
