"""Identifies runs: content ids of specs and requests, and the differences in words."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from engine.core.cid import JSON, cid, cid_of_json
from engine.core.request import Request
from engine.schemas import RunSpec
from engine.schemas.prompt import PromptSpec

EXCLUDED = {
    "output": "where and how safely results are kept does not change them",
    "storage": "how files are fetched does not change them; where they come from is model.sources",
    "telemetry": "what is shown does not change what is answered",
    "provider.prices": "what an answer costs does not change it",
    "provider.price": "what an answer costs does not change it",
    "policy.batch.job": "the form of batch jobs does not change the requests; the rest may go live",
    "policy.queue": "the queue decides when a request goes, not what it gets; a resume may go slower or faster",
}
"""Dotted keys that a fingerprint leaves out, each with the reason. They may differ at resume."""

_encode = msgspec.json.Encoder(order="sorted").encode
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")


def plain_spec(spec: RunSpec) -> dict[str, Any]:
    """Returns the spec as plain data, as written to disk: a user and password inside a URL are replaced by `***`."""
    redacted: dict[str, Any] = _redact(spec.model_dump(mode="json"))
    return redacted


def spec_fingerprint(spec: RunSpec) -> str:
    """Returns the content id of a run's task: its spec without EXCLUDED."""
    plain = _without_excluded(plain_spec(spec))
    if spec.prompt == PromptSpec():
        del plain["prompt"]  # runs of versions without prompts have the same fingerprint
    return cid_of_json(plain)


def request_fingerprint(request: Request) -> str:
    """Returns the content id of a request without its id, priority, deadline and metadata."""
    return cid(_encode({"task": request.task, "body": request.body}), JSON)


def diff(old: dict[str, Any], new: dict[str, Any], *, excluded: bool = False) -> list[str]:
    """Returns the differences of two plain specs, a line `path: old -> new` each; `excluded` adds those keys."""
    before = _flat(old if excluded else _without_excluded(old))
    after = _flat(new if excluded else _without_excluded(new))
    lines = []
    for path in [*before, *(path for path in after if path not in before)]:
        was, now = before.get(path, "(absent)"), after.get(path, "(absent)")
        if was != now:
            lines.append(f"{path}: {was} -> {now}")
    return lines


def _without_excluded(spec: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    kept = {}
    for key, value in spec.items():
        path = prefix + key
        if path not in EXCLUDED:
            kept[key] = _without_excluded(value, path + ".") if isinstance(value, dict) else value
    return kept


def _flat(value: Any, path: str = "") -> dict[str, str]:
    if isinstance(value, dict) and value:
        found: dict[str, str] = {}
        for key, item in value.items():
            found.update(_flat(item, f"{path}.{key}" if path else str(key)))
        return found
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        found = {}
        for place, item in enumerate(value):
            found.update(_flat(item, f"{path}.{place}"))
        return found
    if isinstance(value, bool):
        return {path: "true" if value else "false"}
    return {path: "null" if value is None else str(value)}


def _redact(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _redact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_redact(item) for item in value]
    return _USERINFO.sub("***@", value) if isinstance(value, str) and "://" in value else value
