"""Streams answers to the terminal: what `engine ask` and `engine chat` share."""

from __future__ import annotations

import re
import sys
from typing import Any

from engine.api.engine import Engine
from engine.core.errors import ConfigError
from engine.core.request import Request
from engine.executors.services import Services
from engine.schemas import RunSpec
from engine.schemas.prompt import TextFile

OVERRIDE = re.compile(r"[+~]{0,2}[\w./@:-]+(?:=|$)")
"""The beginning of a word that is an override, and not a part of a question."""


def engine_of(spec: RunSpec) -> Engine:
    """Returns an engine for answers one by one. Raises ConfigError for a model that does not chat, EngineError."""
    tasks = spec.model.tasks
    if tasks and not {"chat", "completion"} & set(tasks):
        raise ConfigError(f"model.tasks: got {', '.join(tasks)}; expected chat or completion. Fix: model=NAME")
    return Engine(spec, services=Services(seed=spec.seed, notify=lambda text: print(text, file=sys.stderr, flush=True)))


def opening(spec: RunSpec) -> list[dict[str, Any]]:
    """Returns the messages before the first question: the system prompt."""
    system = spec.prompt.system
    if isinstance(system, TextFile):
        raise ConfigError("prompt.system: got a file; expected a text here. Fix: prompt.system=TEXT")
    return [{"role": "system", "content": system}] if system else []


async def answered(engine: Engine, messages: list[dict[str, Any]]) -> str:
    """Prints an answer as it comes, and returns it. Raises InferenceError."""
    spec = engine.spec
    parameters = {**spec.prompt.parameters, **spec.workload.parameters}
    if spec.model.tasks and "chat" not in spec.model.tasks:
        request = Request("completion", {**parameters, "prompt": messages[-1]["content"]})
    else:
        request = Request("chat", {**parameters, "messages": messages})
    pieces: list[str] = []
    try:
        async for chunk in engine.stream(request):
            if chunk.restarted:
                pieces.clear()
                print("\n… once more from the start:")
            if chunk.text:
                pieces.append(chunk.text)
                print(chunk.text, end="", flush=True)
    finally:
        if pieces:
            print(flush=True)
    return "".join(pieces)
