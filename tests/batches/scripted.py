"""A real server of OpenAI's batch API that misbehaves by a script: it lags, or does not have its files ready."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]
NOT_FOUND: Answer = (404, {"error": {"message": "Not found", "type": "not_found_error"}})


class ScriptedBatches:
    """Keys of `misses` are `poll`, `file`, `results`, `create`: so many first calls of each, per job, get `refusal`."""

    def __init__(self, misses: dict[str, int], refusal: Answer = NOT_FOUND, *, status: str = "processed") -> None:
        self.misses = misses
        self.refusal = refusal
        self.status = status
        self.listing = True
        self.late_files = 0
        """So many polls of a completed job name no file yet."""
        self.calls: list[str] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.files: dict[str, list[str]] = {}
        self._met: dict[tuple[str, str], int] = {}

    def count(self, call: str) -> int:
        return sum(each.startswith(call) for each in self.calls)

    def answer(self, method: str, path: str, content: bytes) -> Answer:
        if path.endswith("/chat/completions"):
            return 200, _reply("live")
        if method == "POST" and path.endswith("/files"):
            name = f"file-{len(self.files)}"
            lines = content.decode("utf-8", "replace").splitlines()
            self.files[name] = [json.loads(line)["custom_id"] for line in lines if line.startswith('{"custom_id"')]
            return 200, {"id": name, "status": self.status}
        if method == "POST" and path.endswith("/batches"):
            body = json.loads(content)
            if self._misses("create", body["input_file_id"]):
                return self.refusal
            job = {"id": f"batch_{len(self.jobs)}", "status": "in_progress", **body, "created_at": 2**40}
            self.jobs[job["id"]] = job
            return 200, job
        if path.endswith("/batches"):
            return (200, {"data": list(self.jobs.values()), "has_more": False}) if self.listing else NOT_FOUND
        if found := re.search(r"/batches/(batch_\d+)$", path):
            return self._poll(found[1])
        if found := re.search(r"/files/out-(batch_\d+)/content$", path):
            if self._misses("results", found[1]):
                return self.refusal
            return 200, b"\n".join(_line(each) for each in self.files[self.jobs[found[1]]["input_file_id"]])
        if found := re.search(r"/files/(file-\d+)$", path):
            pending = self._misses("file", found[1])
            return 200, {"id": found[1], "status": "pending" if pending else "processed"}
        return NOT_FOUND

    def _poll(self, id: str) -> Answer:
        if self._misses("poll", id):
            return self.refusal
        job = self.jobs[id]
        total = len(self.files[job["input_file_id"]])
        job |= {"status": "completed", "request_counts": {"total": total, "completed": total, "failed": 0}}
        self.late_files -= 1
        return 200, job if self.late_files >= 0 else {**job, "output_file_id": f"out-{id}"}

    def _misses(self, what: str, of: str) -> bool:
        met = self._met[what, of] = self._met.get((what, of), 0) + 1
        return met <= self.misses.get(what, 0)


@contextmanager
def serving(script: ScriptedBatches) -> Iterator[str]:
    """Serves it on a free port; the URL."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = self.path.split("?")[0]
            script.calls.append(f"{self.command} {path}")
            status, body = script.answer(self.command, path, content)
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = _serve  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            """Tests show what they need."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _reply(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    return {"object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop", "message": message}]} | {
        "usage": usage
    }


def _line(custom_id: str) -> bytes:
    response = {"status_code": 200, "request_id": "r", "body": _reply(custom_id)}
    return json.dumps({"id": "b", "custom_id": custom_id, "response": response, "error": None}).encode()
