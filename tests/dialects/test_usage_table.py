"""What every wire tells of usage, whole and streamed, in one canonical meaning: bytes as the providers send them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from engine.core.errors import InferenceError, Truncated
from engine.core.registry import DIALECTS
from engine.core.usage import Usage
from engine.dialects.client import Dialect, StreamDecoder

CHOICE = b'"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]'
DELTA = b'"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]'
END = b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]'


def dialect_of(name: str) -> Dialect:
    made: Dialect = DIALECTS.get(name)(lambda: 0.0)
    return made


def whole(dialect: str, content: bytes, task: str = "chat", headers: dict[str, str] | None = None) -> Usage | None:
    return dialect_of(dialect).decode(task, 200, headers or {"content-type": "application/json"}, content).usage


def openai(usage: bytes) -> bytes:
    return b'{"id":"c","object":"chat.completion","created":1,"model":"m",' + CHOICE + b',"usage":' + usage + b"}"


def fed(decoder: StreamDecoder, content: bytes) -> tuple[Usage | None, InferenceError | None]:
    """The last usage that a stream told, as the chain keeps it, and how it failed; its bytes come one by one."""
    found, failure = None, None
    chunks = []
    for index in range(len(content)):
        chunks += decoder.feed(content[index : index + 1])
    try:
        chunks += decoder.finish()
    except InferenceError as error:
        failure = error
    for chunk in chunks:
        found = chunk.usage or found
    return found, failure


def streamed(dialect: str, content: bytes, task: str = "chat", *, show_usage: bool = True) -> Usage | None:
    usage, failure = fed(dialect_of(dialect).stream_decoder(task, show_usage=show_usage), content)
    assert failure is None
    return usage


def sse(*events: bytes) -> bytes:
    return b"".join(b"data: " + event + b"\n\n" for event in events)


def named(*events: tuple[str, bytes]) -> bytes:
    return b"".join(b"event: " + name.encode() + b"\ndata: " + data + b"\n\n" for name, data in events)


OPENAI_USAGE = (
    b'{"prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,"prompt_tokens_details":{"cached_tokens":1920,'
    b'"audio_tokens":12},"completion_tokens_details":{"reasoning_tokens":64,"audio_tokens":33,'
    b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}'
)
OPENAI_COUNTED = Usage(2006, 300, 1920, 64, audio_input_tokens=12, audio_output_tokens=33)
OPENROUTER_USAGE = (
    b'{"prompt_tokens":194,"completion_tokens":2,"total_tokens":196,"cost":0.95,"is_byok":false,'
    b'"cost_details":{"upstream_inference_cost":19},"prompt_tokens_details":{"cached_tokens":0,'
    b'"cache_write_tokens":100,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}'
)


@pytest.mark.parametrize(
    ("page", "usage", "counted"),
    [
        ("OpenAI, Create chat completion (usage)", OPENAI_USAGE, OPENAI_COUNTED),
        ("OpenRouter, Usage Accounting", OPENROUTER_USAGE, Usage(194, 2, cache_write_tokens=100, cost=0.95)),
        (
            "OpenRouter, Usage Accounting (a key of one's own)",
            OPENROUTER_USAGE.replace(b'"is_byok":false', b'"is_byok":true'),
            Usage(194, 2, cache_write_tokens=100, cost=19.95),
        ),
        (
            "xAI, Cost Tracking; Reasoning (counted beside the completion)",
            b'{"prompt_tokens":37,"completion_tokens":530,"total_tokens":1409,"prompt_tokens_details":'
            b'{"text_tokens":37,"cached_tokens":8},"completion_tokens_details":{"reasoning_tokens":842},'
            b'"cost_in_usd_ticks":37756000}',
            Usage(37, 1372, 8, 842, cost=0.0037756),
        ),
        (
            "Perplexity, Chat completions (usage.cost)",
            b'{"prompt_tokens":8,"completion_tokens":439,"total_tokens":447,"search_context_size":"low","cost":'
            b'{"input_tokens_cost":0.0,"output_tokens_cost":0.007,"request_cost":0.006,"total_cost":0.013}}',
            Usage(8, 439, cost=0.013),
        ),
        (
            "DeepSeek, Context Caching",
            b'{"prompt_tokens":100,"completion_tokens":5,"total_tokens":105,"prompt_cache_hit_tokens":64,'
            b'"prompt_cache_miss_tokens":36}',
            Usage(100, 5, 64),
        ),
        (
            "Groq, Prompt caching",
            b'{"queue_time":0.1,"prompt_tokens":4641,"completion_tokens":187,"total_tokens":4828,'
            b'"prompt_tokens_details":{"cached_tokens":4608},"completion_tokens_details":{"reasoning_tokens":40}}',
            Usage(4641, 187, 4608, 40),
        ),
        ("nothing but nonsense", b'{"prompt_tokens":-3,"completion_tokens":"9","cost":true}', Usage()),
    ],
)
def test_the_openai_wire_whole_and_streamed(page: str, usage: bytes, counted: Usage) -> None:
    assert whole("openai", openai(usage)) == counted, page
    last = b'{"choices":[],"usage":' + usage + b"}"
    parts = (b"{" + DELTA + b"}", b"{" + END + b"}", last, b"[DONE]")
    assert streamed("openai", sse(*parts)) == counted
    # Not asked for, it comes with the chunk that ends the answer.
    assert streamed("openai", sse(*parts), show_usage=False) == counted


@pytest.mark.parametrize("show_usage", [True, False])
def test_usage_in_the_last_chunk_and_cumulative_usage_in_every_chunk_are_kept(show_usage: bool) -> None:
    with_end = sse(b"{" + DELTA + b"}", b"{" + END + b',"usage":{"prompt_tokens":7,"completion_tokens":2}}', b"[DONE]")
    assert streamed("openai", with_end, show_usage=show_usage) == Usage(7, 2)
    growing = sse(
        b"{" + DELTA + b',"usage":{"prompt_tokens":7,"completion_tokens":1}}',
        b"{" + DELTA + b',"usage":{"prompt_tokens":7,"completion_tokens":2}}',
        b"{" + END + b',"usage":{"prompt_tokens":7,"completion_tokens":3}}',
        b"[DONE]",
    )
    assert streamed("openai", growing, show_usage=show_usage) == Usage(7, 3)
    usage, failure = fed(dialect_of("openai").stream_decoder("chat", show_usage=show_usage), growing[:-30])
    assert isinstance(failure, Truncated)
    assert usage in (Usage(7, 2), Usage(7, 3))


def test_groqs_own_place_for_the_usage_of_a_stream() -> None:
    usage = b'"x_groq":{"id":"req_1","usage":{"prompt_tokens":18,"completion_tokens":9,"total_time":0.01}}'
    content = sse(b"{" + DELTA + b',"x_groq":{"id":"req_1"}}', b"{" + END + b"," + usage + b"}", b"[DONE]")
    assert streamed("openai", content) == Usage(18, 9)


@pytest.mark.parametrize(
    ("page", "task", "content", "counted"),
    [
        (
            "OpenAI, Create embeddings",
            "embedding",
            b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1]}],"model":"m",'
            b'"usage":{"prompt_tokens":8,"total_tokens":8}}',
            Usage(8),
        ),
        (
            "OpenAI, Create a model response",
            "response",
            b'{"id":"r","object":"response","status":"completed","output":[{"type":"message","role":"assistant",'
            b'"content":[{"type":"output_text","text":"Hi"}]}],"usage":{"input_tokens":328,"input_tokens_details":'
            b'{"cached_tokens":128,"cache_write_tokens":64},"output_tokens":52,"output_tokens_details":'
            b'{"reasoning_tokens":40},"total_tokens":380}}',
            Usage(328, 52, 128, 40, cache_write_tokens=64),
        ),
        (
            "OpenAI, Create image",
            "image",
            b'{"created":1,"data":[{"b64_json":"aGk="}],"usage":{"total_tokens":100,"input_tokens":50,'
            b'"output_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}}',
            Usage(50, 50, image_input_tokens=40),
        ),
        (
            "OpenAI, Create transcription (tokens)",
            "transcription",
            b'{"text":"Hi","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":0,'
            b'"audio_tokens":14},"output_tokens":45,"total_tokens":59}}',
            Usage(14, 45, audio_input_tokens=14),
        ),
        (
            "OpenAI, Create transcription (duration)",
            "transcription",
            b'{"text":"Hi","usage":{"type":"duration","seconds":12}}',
            Usage(audio_s=12.0),
        ),
    ],
)
def test_the_other_operations_of_the_openai_wire(page: str, task: str, content: bytes, counted: Usage) -> None:
    assert whole("openai", content, task) == counted, page


# -- Anthropic: what the cache gave and took stands beside the input --------------------------------------------------

CACHE = (
    b'"cache_creation_input_tokens":248,"cache_read_input_tokens":1800,'
    b'"cache_creation":{"ephemeral_5m_input_tokens":148,"ephemeral_1h_input_tokens":100}'
)
CLAUDE = Usage(2068, 503, 1800, 30, cache_write_tokens=248, cache_write_1h_tokens=100)


def claude_stream() -> tuple[tuple[str, bytes], ...]:
    start = b'{"type":"message_start","message":{"id":"m","model":"c","usage":{"input_tokens":20,"output_tokens":1,'
    return (
        ("message_start", start + CACHE + b"}}}"),
        ("content_block_start", b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'),
        ("ping", b'{"type":"ping"}'),
        (
            "content_block_delta",
            b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}',
        ),
        ("content_block_stop", b'{"type":"content_block_stop","index":0}'),
        (
            "message_delta",
            b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":503,'
            b'"output_tokens_details":{"thinking_tokens":30}}}',
        ),
        ("message_stop", b'{"type":"message_stop"}'),
    )


def test_anthropics_prompt_holds_what_its_cache_gave_and_took() -> None:
    content = (
        b'{"id":"m","type":"message","role":"assistant","model":"c","content":[{"type":"text","text":"Hi"}],'
        b'"stop_reason":"end_turn","usage":{"input_tokens":20,"output_tokens":503,'
        b'"output_tokens_details":{"thinking_tokens":30},' + CACHE + b"}}"
    )
    assert whole("anthropic", content) == CLAUDE
    for show_usage in (True, False):
        assert streamed("anthropic", named(*claude_stream()), show_usage=show_usage) == CLAUDE


def test_a_cut_stream_of_anthropics_keeps_its_prompt_and_says_that_the_rest_is_an_estimate() -> None:
    usage, failure = fed(dialect_of("anthropic").stream_decoder("chat"), named(*claude_stream()[:4]))
    assert isinstance(failure, Truncated)
    assert usage == replace(CLAUDE, output_tokens=1, reasoning_tokens=0, estimated=True)


def test_what_anthropic_refuses_to_go_on_with_is_counted() -> None:
    events = list(claude_stream())
    events[5] = (events[5][0], events[5][1].replace(b"end_turn", b"refusal"))
    _, failure = fed(dialect_of("anthropic").stream_decoder("chat"), named(*events))
    assert failure is not None
    assert (failure.kind, failure.usage) == ("content_filtered", CLAUDE)


# -- Gemini: the cache is a part of the prompt, thoughts and tools stand beside ---------------------------------------

GEMINI_META: dict[str, Any] = {
    "promptTokenCount": 264,
    "cachedContentTokenCount": 200,
    "toolUsePromptTokenCount": 16,
    "candidatesTokenCount": 30,
    "thoughtsTokenCount": 70,
    "totalTokenCount": 380,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 6}, {"modality": "IMAGE", "tokenCount": 258}],
    "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 30}],
}
GEMINI = Usage(280, 100, 200, 70, image_input_tokens=258, audio_output_tokens=30)


def gemini(meta: dict[str, Any], reason: str | None = "STOP") -> bytes:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": "Hi"}], "role": "model"}, "index": 0}
    if reason is not None:
        candidate["finishReason"] = reason
    return msgspec.json.encode({"candidates": [candidate], "usageMetadata": meta, "modelVersion": "g"})


def test_geminis_usage() -> None:
    early = {"promptTokenCount": 264, "candidatesTokenCount": 3, "totalTokenCount": 267}
    assert whole("gemini", gemini(GEMINI_META)) == GEMINI
    parts = sse(gemini(early, None), gemini(GEMINI_META))
    assert streamed("gemini", parts) == GEMINI
    assert streamed("gemini", parts, show_usage=False) == GEMINI


def test_a_cut_stream_of_geminis_has_what_it_told_until_then() -> None:
    early = {"promptTokenCount": 264, "candidatesTokenCount": 3, "totalTokenCount": 267}
    usage, failure = fed(dialect_of("gemini").stream_decoder("chat"), sse(gemini(early, None)))
    assert isinstance(failure, Truncated)
    assert usage == Usage(264, 3)


def test_what_gemini_blocks_is_counted() -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9}}
    with pytest.raises(InferenceError) as caught:
        whole("gemini", msgspec.json.encode(blocked))
    assert (caught.value.kind, caught.value.usage) == ("content_filtered", Usage(9))


# -- servers of one's own ---------------------------------------------------------------------------------------------


def test_ollamas_usage() -> None:
    last = b'"done":true,"done_reason":"stop","prompt_eval_count":26,"eval_count":298}'
    line = b'{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"Hi"},'
    assert whole("ollama", line + last) == Usage(26, 298)
    for show_usage in (True, False):
        stream = line + b'"done":false}\n' + line + last + b"\n"
        assert streamed("ollama", stream, show_usage=show_usage) == Usage(26, 298)


def test_tgis_usage() -> None:
    details = b'"details":{"finish_reason":"length","generated_tokens":20,"seed":null,"input_length":5}'
    content = b'{"generated_text":"Hi",' + details.replace(b',"input_length":5', b"") + b"}"
    headers = {"content-type": "application/json", "x-prompt-tokens": "5"}
    assert whole("tgi", content, "completion", headers) == Usage(5, 20)
    event = b'{"token":{"id":1,"text":"Hi","special":false},"generated_text":"Hi",' + details + b"}"
    assert streamed("tgi", b"data:" + event + b"\n\n", "completion") == Usage(5, 20)


def test_teis_usage_comes_in_a_header() -> None:
    headers = {"content-type": "application/json", "x-compute-tokens": "512"}
    assert whole("tei", b"[[0.1,0.2]]", "embedding", headers) == Usage(512)


def test_opeas_usage() -> None:
    usage = b'{"prompt_tokens":18,"completion_tokens":42,"total_tokens":60}'
    assert whole("opea", openai(usage)) == Usage(18, 42)
