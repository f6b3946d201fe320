"""Anthropic's message batches, over simulated jobs. Source: Anthropic's API reference, "Message Batches"."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from engine.core.errors import InvalidRequest
from engine.simulation.batches import Asked, BatchStore, Called, Got, Reply, SimulatedJob
from engine.simulation.wire import Wire

_MAX_ROWS = 100_000
_PATH = "/v1/messages/batches"
_encode = msgspec.json.Encoder().encode


class AnthropicBatches:
    """Answers the calls below /v1/messages/batches."""

    routes: tuple[tuple[str, str], ...] = (
        ("POST", _PATH),
        ("GET", _PATH),
        ("GET", _PATH + "/{job}"),
        ("GET", _PATH + "/{job}/results"),
        ("POST", _PATH + "/{job}/cancel"),
    )

    def __init__(self, store: BatchStore, wires: Mapping[str, Wire]) -> None:
        self._store = store
        self._wires = {"anthropic": wires["anthropic"]}

    def answer(self, called: Called) -> Reply:
        """Raises InvalidRequest."""
        store, route, key = self._store, called.route, called.key
        if route == f"POST {_PATH}":
            return self._create(called.content, key)
        if route == f"GET {_PATH}":
            return self._list(called.query, key)
        job = store.jobs.get(called.parts["job"])
        if job is None or job.api != "anthropic" or job.key != key:
            return _refusal(404, "not_found_error", f"no batch {called.parts['job']}")
        if route.endswith("/cancel"):
            store.cancel(job, self._wires)
        elif route.endswith("/results"):
            if not store.done(job):
                return _refusal(404, "not_found_error", f"{job.id} has no results yet")
            if "lines" not in job.about:
                job.about["lines"] = b"".join(_line(each) for each in store.lines(store.outcome(job, self._wires)))
            return Reply(200, job.about["lines"], content_type="application/x-jsonl")
        return Reply(200, _encode(self._shown(job)))

    def _create(self, content: bytes, key: str | None) -> Reply:
        if self._store.fails():
            return _refusal(500, "api_error", "Internal server error")
        try:
            requests = msgspec.json.decode(content, type=_Create).requests
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"requests: {error}") from error
        ids = [each.custom_id for each in requests]
        if not requests or len(requests) > _MAX_ROWS or len(set(ids)) < len(ids):
            raise InvalidRequest(f"requests: expected 1 … {_MAX_ROWS}, each with a custom_id of its own")
        for place, name in enumerate(ids):
            if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 64:
                raise InvalidRequest(f"requests.{place}.custom_id: String should match ^[a-zA-Z0-9_-]{{1,64}}$")
        asked = [Asked(each.custom_id, "/v1/messages", {}, bytes(each.params)) for each in requests]
        job = self._store.make(f"msgbatch_{len(self._store.jobs) + 1}", "anthropic", key, asked)
        if job.refused is not None:
            del self._store.jobs[job.id]
            return _refusal(429, "rate_limit_error", job.refused[0][2])
        return Reply(200, _encode(self._shown(job)), lost=self._store.loses())

    def _list(self, query: Mapping[str, str], key: str | None) -> Reply:
        jobs = self._store.listed("anthropic", key)
        limit, after = int(query.get("limit", 20)), query.get("after_id")
        start = next((place + 1 for place, job in enumerate(jobs) if job.id == after), 0)
        page = jobs[start : start + limit]
        shown = {
            "data": [self._shown(job) for job in page],
            "has_more": start + limit < len(jobs),
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }
        return Reply(200, _encode(shown))

    def _shown(self, job: SimulatedJob) -> dict[str, Any]:
        store = self._store
        counts = {"processing": len(job.asked), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
        done = store.done(job)
        if done:
            got = store.outcome(job, self._wires)
            counts = {name: sum(_kind(each) == name for each in got) for name in counts}
        return {
            "id": job.id,
            "type": "message_batch",
            "processing_status": "ended" if done else "in_progress",
            "request_counts": counts,
            "created_at": _iso(job.created),
            "expires_at": _iso(job.created + 86400),
            "ended_at": _iso(store.wall) if done else None,
            "cancel_initiated_at": _iso(store.wall) if job.cancelled else None,
            "archived_at": None,
            "results_url": f"https://api.anthropic.com{_PATH}/{job.id}/results" if done else None,
        }


class _Request(msgspec.Struct):
    custom_id: str
    params: msgspec.Raw


class _Create(msgspec.Struct):
    requests: list[_Request]


def _kind(got: Got) -> str:
    if got.never is not None:
        return "expired" if got.never == "expired" else "canceled"
    return "succeeded" if got.status == 200 else "errored"


def _line(got: Got) -> bytes:
    kind = _kind(got)
    result: dict[str, Any] = {"type": kind}
    if kind == "succeeded":
        result["message"] = msgspec.Raw(got.body)
    elif kind == "errored":
        result["error"] = msgspec.Raw(got.body)
    return _encode({"custom_id": got.id, "result": result}) + b"\n"


def _iso(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).isoformat().replace("+00:00", "Z")


def _refusal(status: int, kind: str, message: str) -> Reply:
    return Reply(status, _encode({"type": "error", "error": {"type": kind, "message": message}}))
