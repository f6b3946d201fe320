"""Ollama's facts of a model, and its way to fetch one: /api/show, /api/version, /api/pull.

Source: Ollama's openapi.yaml, `ShowResponse`, `VersionResponse`, `StatusEvent`; types/model/capability.go for the names
of what a model can do; docs/api.md, "Show Model Information", for `model_info`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.core.server_info import ServerInfo
from engine.dialects.codecs.ndjson import NdjsonDecoder
from engine.dialects.common.json_body import lenient, positive
from engine.dialects.discovery import DiscoveryReply, Progress

_CAN = {"completion": ("chat", "completion"), "embedding": ("embedding",)}
"""Capability → tasks; the others (tools, vision, thinking, insert) are parts of a chat or completion."""


def server_info(model: str, answers: Sequence[DiscoveryReply]) -> ServerInfo:
    """From /api/show and /api/version."""
    shown, about = answers
    version = lenient(about.content) if about.status == 200 else None
    found = f"Ollama {version.get('version') or ''}".strip() if type(version) is dict else "Ollama"
    if shown.status == 404:
        step = f"get it with `ollama pull {model}`, or set provider.pull=missing"
        return ServerInfo(missing=True, found=f"{found}, the model is not there: {step}")
    show = lenient(shown.content) if shown.status == 200 else None
    if type(show) is not dict:
        return ServerInfo()
    length = _context_length(show.get("model_info"))
    capabilities = show.get("capabilities")
    known = [each for each in capabilities if type(each) is str] if type(capabilities) is list else []
    tasks = frozenset(task for each in known for task in _CAN.get(each, ()))
    said = [found]
    said += [f"can do {', '.join(known)}"] if known else []
    said += [f"{length} tokens of context"] if length else []
    return ServerInfo(context_length=length, tasks=tasks, found=", ".join(said))


def _context_length(info: Any) -> int | None:
    """Returns what the model was made for; `num_ctx` may be less."""
    if type(info) is not dict:
        return None
    return positive(info.get(f"{info.get('general.architecture')}.context_length"))


class PullDecoder:
    """The progress of a pull, from lines of JSON; `success` ends them."""

    __slots__ = ("_lines", "ended")

    def __init__(self) -> None:
        self._lines = NdjsonDecoder()
        self.ended = False

    def feed(self, data: bytes) -> list[Progress]:
        """Returns what the lines that are now complete say."""
        return [self._read(line) for line in self._lines.feed(data)]

    def _read(self, line: bytes) -> Progress:
        body = lenient(line)
        if type(body) is not dict:
            return Progress(error="a line that is not a JSON object")
        if body.get("error"):
            return Progress(error=str(body["error"]))
        self.ended = self.ended or body.get("status") == "success"
        done, total = body.get("completed"), body.get("total")
        return Progress(
            str(body.get("status") or ""),
            done if type(done) is int else 0,
            total if type(total) is int else 0,
        )
