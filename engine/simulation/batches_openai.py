"""OpenAI's files and batches, over simulated jobs. Source: OpenAI's API reference, "Files" and "Batches"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from engine.core.errors import InvalidRequest
from engine.core.media_access import Media
from engine.dialects.codecs.multipart import read_form
from engine.simulation.batches import Asked, BatchStore, Called, Got, Reply, SimulatedJob
from engine.simulation.wire import Wire

_MAX_ROWS = 50_000
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class OpenAIBatches:
    """Answers the calls below /v1/files and /v1/batches."""

    routes: tuple[tuple[str, str], ...] = (
        ("POST", "/v1/files"),
        ("GET", "/v1/files/{file}/content"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/batches"),
        ("GET", "/v1/batches/{job}"),
        ("POST", "/v1/batches/{job}/cancel"),
    )

    def __init__(self, store: BatchStore, wires: Mapping[str, Wire]) -> None:
        self._store = store
        self._wires = {"openai": wires["openai"]}

    def answer(self, called: Called) -> Reply:
        """Raises InvalidRequest."""
        store, route, key = self._store, called.route, called.key
        if route == "POST /v1/files":
            return self._upload(called.headers, called.content)
        if route == "GET /v1/files/{file}/content":
            found = store.files.get(called.parts["file"].removeprefix("file-"))
            if found is None:
                return _refusal(404, f"No such File object: {called.parts['file']}")
            return Reply(200, found, content_type="application/octet-stream")
        if route == "POST /v1/batches":
            return self._create(called.content, key)
        if route == "GET /v1/batches":
            return self._list(called.query, key)
        job = store.jobs.get(called.parts["job"])
        if job is None or job.api != "openai" or job.key != key:
            return _refusal(404, f"No batch found with id '{called.parts['job']}'.")
        if route.endswith("/cancel"):
            store.cancel(job, self._wires)
        return Reply(200, _encode(self._shown(job)))

    def _upload(self, headers: Mapping[str, str], content: bytes) -> Reply:
        fields = dict(read_form(content, headers.get("content-type", "")))
        file = fields.get("file")
        if fields.get("purpose") != "batch" or not isinstance(file, Media):
            raise InvalidRequest("the form needs purpose=batch and a file")
        most = self._store.spec.max_bytes
        if most is not None and len(file.data) > most:
            return _refusal(413, f"The file is larger than {most} bytes.")
        name = f"file-{self._store.keep(file.data)}"
        shown = {"id": name, "object": "file", "bytes": len(file.data), "created_at": int(self._store.wall)}
        return Reply(200, _encode({**shown, "filename": file.filename, "purpose": "batch", "status": "processed"}))

    def _create(self, content: bytes, key: str | None) -> Reply:
        if self._store.fails():
            return _refusal(500, "The server had an error")
        body = _decode(content)
        file = self._store.files.get(str(body.get("input_file_id")).removeprefix("file-"))
        if file is None:
            raise InvalidRequest(f"No such File object: {body.get('input_file_id')}")
        if not str(body.get("completion_window")).endswith(("h", "d")):
            raise InvalidRequest("completion_window: expected 24h")
        endpoint = str(body.get("endpoint"))
        asked, wrong = _asked(file, endpoint)
        job = self._store.make(
            f"batch_{len(self._store.jobs) + 1}", "openai", key, asked,
            endpoint=endpoint, metadata=body.get("metadata"), input_file_id=body["input_file_id"],
            window=body["completion_window"],
        )  # fmt: skip
        if wrong:
            job.refused = wrong
        return Reply(200, _encode(self._shown(job)), lost=self._store.loses())

    def _list(self, query: Mapping[str, str], key: str | None) -> Reply:
        jobs = self._store.listed("openai", key)
        limit, after = int(query.get("limit", 20)), query.get("after")
        start = next((place + 1 for place, job in enumerate(jobs) if job.id == after), 0)
        page = jobs[start : start + limit]
        shown = {"object": "list", "data": [self._shown(job) for job in page], "has_more": start + limit < len(jobs)}
        return Reply(200, _encode(shown))

    def _shown(self, job: SimulatedJob) -> dict[str, Any]:
        store, about = self._store, job.about
        done = store.done(job)
        said = "in_progress" if store.share(job) > 0.1 else "validating"
        counts = {"total": len(job.asked), "completed": int(len(job.asked) * store.share(job)), "failed": 0}
        shown: dict[str, Any] = {
            "id": job.id,
            "object": "batch",
            "endpoint": about["endpoint"],
            "input_file_id": about["input_file_id"],
            "completion_window": about["window"],
            "metadata": about["metadata"],
            "created_at": int(job.created),
            "errors": None,
        }
        if job.refused is not None:
            data = [{"code": code, "message": text, "line": line or None} for line, code, text in job.refused]
            return {**shown, "status": "failed", "errors": {"object": "list", "data": data}, "request_counts": counts}
        if done:
            said = "cancelled" if job.cancelled else "completed"
            got = store.outcome(job, self._wires)
            if any(each.never == "expired" for each in got):
                said = "expired"
            if "files" not in about:
                about["files"] = self._files(got)
            for name, kept in zip(("output_file_id", "error_file_id"), about["files"], strict=True):
                shown[name] = kept
            counts["completed"] = sum(each.never is None and each.status == 200 for each in got)
            counts["failed"] = len(got) - counts["completed"]
        return {**shown, "status": said, "request_counts": counts}

    def _files(self, got: list[Got]) -> tuple[str | None, str | None]:
        """The file of replies, and that of requests that were not processed; each only if it has a line."""
        lines: tuple[list[bytes], list[bytes]] = ([], [])
        for each in self._store.lines(got):
            head = {"id": f"batch_req_{each.id}", "custom_id": each.id}
            if each.never is None:
                response = {"status_code": each.status, "request_id": each.request_id, "body": msgspec.Raw(each.body)}
                lines[0].append(_encode({**head, "response": response, "error": None}) + b"\n")
            else:
                error = {"code": f"batch_{each.never}", "message": f"This request was not executed: {each.never}."}
                lines[1].append(_encode({**head, "response": None, "error": error}) + b"\n")
        first, second = lines
        return self._kept(first), self._kept(second)

    def _kept(self, lines: list[bytes]) -> str | None:
        return f"file-{self._store.keep(b''.join(lines))}" if lines else None


def _asked(file: bytes, endpoint: str) -> tuple[list[Asked], list[tuple[int, str, str]]]:
    """The requests of a file, and what is wrong with its lines."""
    asked, wrong = [], []
    seen: set[str] = set()
    lines = file.splitlines()
    if len(lines) > _MAX_ROWS:
        wrong.append((0, "too_many_requests", f"at most {_MAX_ROWS} requests"))
    for number, line in enumerate(lines, 1):
        try:
            entry = msgspec.json.decode(line, type=_Line)
        except msgspec.DecodeError:
            wrong.append((number, "invalid_json_line", "This line is not parseable as valid JSON."))
            continue
        if entry.custom_id in seen:
            wrong.append((number, "duplicate_custom_id", f"The custom_id {entry.custom_id} is there twice."))
        if entry.url != endpoint:
            wrong.append((number, "mismatched_endpoint", f"The URL {entry.url} is not the batch's, {endpoint}."))
        seen.add(entry.custom_id)
        asked.append(Asked(entry.custom_id, entry.url, {}, bytes(entry.body)))
    return asked, wrong


class _Line(msgspec.Struct):
    custom_id: str
    url: str
    body: msgspec.Raw
    method: str = "POST"


def _refusal(status: int, message: str) -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return Reply(status, _encode({"error": error}))
