"""null is absent, on every wire: wherever a field may be left out it may also be null."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest

from engine.core.errors import InferenceError
from engine.core.registry import DIALECTS
from tests.fuzz import corpus
from tests.fuzz.mutations import paths

_FREE = ("args", "arguments", "input", "metadata")
"""Fields that hold a user's own JSON, in which null is a value."""


def _fields(document: Any) -> list[tuple[Any, ...]]:
    """The paths of a document's fields that are the wire's own."""
    return [
        path
        for path in paths(document)
        if path and isinstance(path[-1], str) and not any(name in _FREE for name in path[:-1])
    ]


def _changed(document: Any, path: tuple[Any, ...], *, null: bool) -> Any:
    document = copy.deepcopy(document)
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    if null:
        holder[path[-1]] = None
    else:
        del holder[path[-1]]
    return document


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None and name != "id"}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _whole(name: str, task: str, body: Any) -> Any:
    try:
        reply = DIALECTS.get(name)(lambda: 1.0).decode(
            task, 200, {"content-type": "application/json"}, msgspec.json.encode(body)
        )
    except InferenceError:
        return None
    return _without_nulls(reply.body), reply.usage


def _streamed(name: str, task: str, events: list[Any]) -> Any:
    decoder = DIALECTS.get(name)(lambda: 1.0).stream_decoder(task)
    try:
        chunks = decoder.feed(b"".join(corpus.event(name, each) for each in events)) + decoder.finish()
    except InferenceError:
        return None
    return [(_without_nulls(chunk.body), chunk.usage) for chunk in chunks]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in corpus.CLIENTS if name != "kserve_grpc"])
def test_null_is_absent(name: str) -> None:
    for task in sorted(DIALECTS.get(name)().tasks):
        for body in corpus.wire_replies(name, task):
            for path in _fields(body):
                absent = _whole(name, task, _changed(body, path, null=False))
                if absent is not None:
                    assert _whole(name, task, _changed(body, path, null=True)) == absent, (task, path)
        for events in corpus.wire_streams(name, task):
            for place, event in enumerate(events):
                for path in [] if isinstance(event, bytes) else _fields(event):
                    if (name, path) == ("opea", ("choices",)):
                        continue  # an object without choices is a piece of a megaservice's text
                    made = [
                        _streamed(name, task, [*events[:place], _changed(event, path, null=null), *events[place + 1 :]])
                        for null in (False, True)
                    ]
                    if made[0] is not None:
                        assert made[1] == made[0], (task, place, path)
