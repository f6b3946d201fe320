"""Each kind of input: one mutated case from a random generator, given to what reads it.

A case passes when it ends as an answer of the canonical types, an InferenceError or a ConfigError.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from engine.core.errors import ConfigError, InferenceError, Internal
from engine.core.registry import DIALECTS, SERVER_DIALECTS
from engine.core.reply_text import first_text
from engine.core.request import Request
from engine.core.stream import Chunk
from engine.core.token_estimate import input_tokens, output_tokens, written_tokens
from engine.executors.remote import RemoteExecutor
from engine.executors.services import Services
from engine.media.fields import may_hold_media
from engine.middleware.preflight import check_body
from engine.middleware.rescue_splice import Splice
from engine.schemas import TargetSpec
from engine.schemas.hardware import AutoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.provider import CredentialSpec, RemoteProviderSpec, TransportSpec
from engine.tasks import embedding, forms, splitting
from engine.telemetry.otel_content import content as span_content
from engine.workloads.rows import Form, Record, row_of
from tests.fuzz import corpus
from tests.fuzz.errors import ERRORS, HEADER_VALUES, HEADERS, STATUSES
from tests.fuzz.mutations import mutated

_HARDWARE = AutoHardwareSpec(kind="auto")
LOCAL = (
    "rerank",
    "translation",
    "summarization",
    "question-answering",
    "zero-shot-classification",
    "text-classification",
)
"""Tasks that a model in this process reads by the forms of `engine/tasks/forms.py`."""
NOW = 1_800_000_000.0


class Broken(AssertionError):
    """A reader raised what it must not."""

    def __init__(self, where: str, given: Any, error: BaseException) -> None:
        super().__init__(f"{where}: {type(error).__name__}: {error}; given: {given!r:.2000}")
        self.where = f"{where}: {type(error).__name__}: {error!s:.80}"


def _tried(where: str, given: Any, read: Callable[[], Any]) -> Any:
    """The result of a reader; None for a typed error."""
    try:
        return read()
    except (InferenceError, ConfigError) as error:
        if isinstance(error, Internal):
            raise Broken(where, given, error) from error
        return None
    except Exception as error:
        raise Broken(where, given, error) from error


def _pick(rng: random.Random) -> tuple[str, Any, str]:
    name = rng.choice(corpus.CLIENTS)
    dialect = DIALECTS.get(name)(lambda: NOW)
    return name, dialect, rng.choice(sorted(dialect.tasks))


def _headers(rng: random.Random) -> dict[str, str]:
    names = rng.sample(HEADERS, rng.randint(0, 4))
    return {name: rng.choice(HEADER_VALUES) for name in names}


@cache
def _executor(name: str) -> RemoteExecutor:
    provider = RemoteProviderSpec(
        kind="remote",
        name="p",
        dialect=name,
        base_url="http://127.0.0.1:9",
        credential=CredentialSpec(required=False),
        transport=TransportSpec(trust_env=False),
    )
    return RemoteExecutor(TargetSpec(provider=provider, model=ModelSpec(name="m"), hardware=_HARDWARE), Services())


def reply(rng: random.Random) -> None:
    """A whole reply."""
    name, dialect, task = _pick(rng)
    replies = corpus.wire_replies(name, task)
    if not replies:
        return
    body = mutated(rng.choice(replies), rng)
    headers = _headers(rng) if rng.random() < 0.2 else {"content-type": "application/json"}
    content = msgspec.json.encode(body)
    answer = _tried(f"{name}.decode {task}", body, lambda: dialect.decode(task, 200, headers, content))
    if answer is None:
        return
    if name != "kserve_grpc":
        asked = Request(task, dict(rng.choice(corpus.REQUESTS.get(task, [{}]))), id="r")
        whole = _tried(f"{name}.answer {task}", body, lambda: _executor(name).answer(asked, 200, headers, content))
        if whole is not None:
            _tried(f"{name}.answer {task}: text", body, lambda: msgspec.json.encode(whole.body))
    if not isinstance(answer.body, dict):
        raise Broken(f"{name}.decode {task}", body, TypeError("no object"))
    _used(f"{name} {task}", task, answer.body)


def _used(where: str, task: str, body: dict[str, Any]) -> None:
    """Gives a canonical reply to those who read one."""
    first_text(body)
    _tried(f"{where}: written_tokens", body, lambda: written_tokens(body))
    _tried(f"{where}: encode", body, lambda: msgspec.json.encode(body))
    for server in ("openai", "anthropic", "gemini", "ollama"):
        port = SERVER_DIALECTS.get(server)()
        if task in port.routes.values():
            _tried(f"{where}: {server}.reply", body, lambda port=port: port.reply(corpus.call_of(task), body))


def stream(rng: random.Random) -> None:
    """A stream of events, one or two of which are odd."""
    name, dialect, task = _pick(rng)
    streams = corpus.wire_streams(name, task)
    if not streams:
        return
    events = list(rng.choice(streams))
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(events))
        if not isinstance(events[place], bytes):
            events[place] = mutated(events[place], rng)
    sent = b"".join(corpus.event(name, each) for each in events)
    cut = rng.randrange(len(sent) + 1)
    where = f"{name}.stream {task}"
    decoder = dialect.stream_decoder(task, show_usage=rng.random() < 0.5)
    chunks: list[Chunk] = []
    chunks += _tried(f"{where}: feed", events, lambda: decoder.feed(sent[:cut]) + decoder.feed(sent[cut:])) or []
    chunks += _tried(f"{where}: finish", events, decoder.finish) or []
    splice = Splice()
    for chunk in chunks:
        if not isinstance(chunk.body, dict) or not isinstance(chunk.body.get("choices", []), list):
            raise Broken(where, events, TypeError(f"no chunk: {chunk.body!r:.200}"))
        _tried(f"{where}: splice", events, lambda chunk=chunk: (splice.passes(chunk), chunk.text))
        _tried(f"{where}: encode", events, lambda chunk=chunk: msgspec.json.encode(chunk.body))
    if task in ("chat", "completion"):
        server = rng.choice(("openai", "anthropic", "gemini", "ollama")) if task == "chat" else "openai"
        encoder = SERVER_DIALECTS.get(server)().stream_encoder(corpus.call_of(task, stream=True))
        for chunk in chunks:
            _tried(f"{where}: {server}.chunk", chunk.body, lambda chunk=chunk: encoder.chunk(chunk))
        _tried(f"{where}: {server}.end", events, encoder.end)


def error(rng: random.Random) -> None:
    """An error body, under any status and headers."""
    name, dialect, task = _pick(rng)
    body = mutated(rng.choice(ERRORS), rng)
    status, headers = rng.choice(STATUSES), _headers(rng)
    content = msgspec.json.encode(body)
    made = _tried(f"{name}.error", (status, headers, body), lambda: dialect.error(status, headers, content))
    if not isinstance(made, InferenceError) or isinstance(made, Internal):
        raise Broken(f"{name}.error", (status, headers, body), TypeError(f"no typed error: {made!r}"))
    made.as_dict()
    _tried(f"{name}.rate_hints", headers, lambda: dialect.rate_hints(headers))
    _tried(f"{name}.request_id", headers, lambda: dialect.request_id(headers))
    _tried(f"{name}.models", body, lambda: dialect.models(content))
    _tried(f"{name}.decode {task}", (status, headers, body), lambda: dialect.decode(task, status, headers, content))


def request(rng: random.Random) -> None:
    """A client's request to a server of ours."""
    name = rng.choice(corpus.CLIENTS)
    server = SERVER_DIALECTS.get(name)()
    (_, path), task = rng.choice(sorted((route, task) for route, task in server.routes.items() if task != "models"))
    client = DIALECTS.get(name)()
    bodies = corpus.REQUESTS.get(task) or [{}]
    body: Any = rng.choice(bodies)
    try:
        call = client.encode(task, corpus.with_media(body), model="m", stream=False, drop_unsupported=True)
        body = msgspec.json.decode(call.content)
    except (InferenceError, msgspec.DecodeError, UnicodeDecodeError):
        pass
    body = mutated(body, rng)
    filled = path.replace("{model}", "m").replace("{version}", "1")
    headers = {"content-type": "application/json", **_headers(rng)}
    content = msgspec.json.encode(body)
    parts = {"model": "m", "version": "1"}
    _tried(f"{name} server.read {path}", body, lambda: server.read(filled, parts, headers, content))


def row(rng: random.Random) -> None:
    """A row of a workload, on its way to each wire that has its task."""
    task = rng.choice(sorted(corpus.REQUESTS))
    body = rng.choice(corpus.REQUESTS[task])
    line: dict[str, Any] = {"custom_id": "mine", "task": task, "metadata": {"a": 1}, "priority": "low", "deadline_s": 5}
    line = {**line, "body": body} if rng.random() < 0.5 else {**line, **body}
    given = mutated(line, rng)
    made = _tried("row_of", given, lambda: row_of(0, "f", Record(1, msgspec.json.encode(given)), Form()))
    _tried("letter", given, made.letter)
    if made.request is None:
        return
    task, body = made.request.task, made.request.body
    if _tried("check_body", given, lambda: (check_body(task, body),)) is None:
        return
    whole = made.request
    _tried("estimate", given, lambda: (input_tokens(body), output_tokens(task, body, 16)))
    _tried("media", given, lambda: may_hold_media(task, body))
    _tried("split", given, lambda: splitting.split(whole, 1))
    if task in LOCAL:
        _tried(f"forms.read {task}", given, lambda: forms.read(task, corpus.with_media(body)))
    elif task == "embedding":
        _tried("embedding.read", given, lambda: embedding.read(body))
    _tried("span_content", given, lambda: span_content(made.request, None))
    for name in corpus.CLIENTS:
        dialect = DIALECTS.get(name)()
        if task in dialect.tasks:
            for streamed in (False, True):
                _tried(
                    f"{name}.encode {task}",
                    given,
                    lambda dialect=dialect, streamed=streamed: dialect.encode(
                        task, corpus.with_media(body), model="m", stream=streamed, drop_unsupported=True
                    ),
                )


KINDS: dict[str, Callable[[random.Random], None]] = {
    "reply": reply,
    "stream": stream,
    "error": error,
    "request": request,
    "row": row,
}
