"""Gemini's batches and files, over simulated jobs. Source: the Gemini API's reference, "Batch API" and "Files"."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from engine.core.errors import InvalidRequest
from engine.simulation.batches import Asked, BatchStore, Called, Got, Reply, SimulatedJob
from engine.simulation.wire import Wire

_INLINE_BYTES = 20_000_000
_METHODS = {"batchGenerateContent": "generateContent", "asyncBatchEmbedContent": "embedContent"}
_GRPC = {400: 3, 401: 16, 403: 7, 404: 5, 429: 8, 499: 1, 500: 13, 503: 14, 504: 4}
"""google.rpc.Code by HTTP status."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class GeminiBatches:
    """Answers the calls of `models.batchGenerateContent`, `models.asyncBatchEmbedContent`, `batches` and `files`."""

    routes: tuple[tuple[str, str], ...] = (
        ("POST", "/v1beta/models/{model}:batchGenerateContent"),
        ("POST", "/v1beta/models/{model}:asyncBatchEmbedContent"),
        ("GET", "/v1beta/batches"),
        ("GET", "/v1beta/batches/{job}"),
        ("POST", "/v1beta/batches/{job}:cancel"),
        ("POST", "/upload/v1beta/files"),
        ("GET", "/download/v1beta/files/{file}:download"),
        ("GET", "/v1beta/files/{file}:download"),  # the path of Google's own client
    )
    """Under v1, which Google has as well, this server has OpenAI's batches."""

    def __init__(self, store: BatchStore, wires: Mapping[str, Wire]) -> None:
        self._store = store
        self._wires = {"gemini": wires["gemini"]}

    def answer(self, called: Called) -> Reply:
        """Raises InvalidRequest."""
        store, route, key = self._store, called.route, called.key
        if route.startswith("POST /upload"):
            return self._upload(called.headers, called.content)
        if route.endswith(":download"):
            found = store.files.get(called.parts["file"])
            if found is None:
                return _refusal(404, "NOT_FOUND", f"no file {called.parts['file']}")
            return Reply(200, found, content_type="application/jsonl")
        if "{model}" in route:
            return self._create(route.rpartition(":")[2], called.parts["model"], called.content, key)
        if route.endswith("/batches"):
            return self._list(called.query, key)
        job = store.jobs.get(f"batches/{called.parts['job']}")
        if job is None or job.key != key:
            return _refusal(404, "NOT_FOUND", f"no batch {called.parts['job']}")
        if route.endswith(":cancel"):
            store.cancel(job, self._wires)
            return Reply(200, b"{}")
        return Reply(200, _encode(self._shown(job)))

    def _upload(self, headers: Mapping[str, str], content: bytes) -> Reply:
        command = headers.get("x-goog-upload-command", "")
        if command == "start":
            where = f"http://{headers.get('host', 'localhost')}/upload/v1beta/files?upload_id=1"
            return Reply(200, b"", {"x-goog-upload-url": where})
        if command != "upload, finalize":
            raise InvalidRequest("x-goog-upload-command: expected start, or upload, finalize")
        name = self._store.keep(content)
        shown = {"file": {"name": f"files/{name}", "sizeBytes": str(len(content))}}
        return Reply(200, _encode(shown), {"x-goog-upload-status": "final"})

    def _create(self, method: str, model: str, content: bytes, key: str | None) -> Reply:
        if self._store.fails():
            return _refusal(500, "INTERNAL", "An internal error has occurred")
        body = _decode(content).get("batch", {})
        source = body.get("inputConfig", {})
        if "fileName" in source:
            file = self._store.files.get(str(source["fileName"]).removeprefix("files/"))
            if file is None:
                raise InvalidRequest(f"no file {source['fileName']}")
            entries = [_decode(line) for line in file.splitlines()]
        else:
            if len(content) > _INLINE_BYTES:
                raise InvalidRequest(f"the request payload size exceeds the limit: {_INLINE_BYTES} bytes")
            entries = [
                {"key": each.get("metadata", {}).get("key"), "request": each["request"]}
                for each in source.get("requests", {}).get("requests", [])
            ]
        path = f"/v1beta/models/{{model}}:{_METHODS[method]}"
        asked = [Asked(str(each["key"]), path, {"model": model}, _encode(each["request"])) for each in entries]
        if not asked or not body.get("displayName"):
            raise InvalidRequest("batch: displayName and at least one request are needed")
        job = self._store.make(
            f"batches/{len(self._store.jobs) + 1}", "gemini", key, asked,
            display=body["displayName"], model=model, file=source.get("fileName"),
        )  # fmt: skip
        if job.refused is not None and job.refused[0][1] == "token_limit_exceeded":
            del self._store.jobs[job.id]
            return _refusal(429, "RESOURCE_EXHAUSTED", job.refused[0][2])
        return Reply(200, _encode(self._shown(job)), lost=self._store.loses())

    def _list(self, query: Mapping[str, str], key: str | None) -> Reply:
        jobs = self._store.listed("gemini", key)
        size, start = int(query.get("pageSize", 50)), int(query.get("pageToken", 0))
        shown: dict[str, Any] = {"operations": [self._shown(job, whole=False) for job in jobs[start : start + size]]}
        if start + size < len(jobs):
            shown["nextPageToken"] = str(start + size)
        return Reply(200, _encode(shown))

    def _shown(self, job: SimulatedJob, whole: bool = True) -> dict[str, Any]:
        store, about = self._store, job.about
        done = store.done(job)
        stats = {"requestCount": str(len(job.asked)), "pendingRequestCount": str(len(job.asked))}
        metadata: dict[str, Any] = {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "model": f"models/{about['model']}",
            "displayName": about["display"],
            "createTime": _iso(job.created),
            "batchStats": stats,
            "state": "BATCH_STATE_RUNNING" if store.share(job) > 0.1 else "BATCH_STATE_PENDING",
            "name": job.id,
        }
        shown: dict[str, Any] = {"name": job.id, "metadata": metadata}
        if not done:
            return shown
        shown["done"] = True
        if job.refused is not None:
            metadata["state"] = "BATCH_STATE_FAILED"
            shown["error"] = {"code": 3, "message": job.refused[0][2]}
            return shown
        got = store.outcome(job, self._wires)
        stats["successfulRequestCount"] = str(sum(each.never is None and each.status == 200 for each in got))
        if any(each.never for each in got):
            metadata["state"] = "BATCH_STATE_CANCELLED" if job.cancelled else "BATCH_STATE_EXPIRED"
        else:
            metadata["state"] = "BATCH_STATE_SUCCEEDED"
        if whole:
            metadata["output"] = self._output(job, got)
        return shown

    def _output(self, job: SimulatedJob, got: list[Got]) -> dict[str, Any]:
        about = job.about
        if "output" not in about:
            # Gemini keeps the order of the requests.
            lines = self._store.lines([each for each in got if each.never is None], ordered=True)
            if about["file"] is None:
                entries = [{"metadata": {"key": each.id}, **_result(each)} for each in lines]
                about["output"] = {"inlinedResponses": {"inlinedResponses": entries}}
            else:
                content = b"".join(_encode({"key": each.id, **_result(each)}) + b"\n" for each in lines)
                about["output"] = {"responsesFile": f"files/{self._store.keep(content)}"}
        output: dict[str, Any] = about["output"]
        return output


def _result(got: Got) -> dict[str, Any]:
    if got.status == 200:
        return {"response": msgspec.Raw(got.body)}
    error = _decode(got.body).get("error", {})
    return {"error": {"code": _GRPC.get(got.status, 2), "message": error.get("message", "")}}


def _iso(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s, UTC).isoformat().replace("+00:00", "Z")


def _refusal(status: int, word: str, message: str) -> Reply:
    return Reply(status, _encode({"error": {"code": status, "message": message, "status": word}}))
