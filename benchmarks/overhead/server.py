"""A local nginx that returns a fixed chat completion, plain or streamed, with the headers that providers send."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from overhead.load import MODEL

CHUNKS = 200
"""Events of each streamed completion, before its last two, which end it and carry the usage."""
CHUNK_BYTES = 320
"""Bytes of each event of the stream."""

_TEXT = (
    "Loopback servers answer at once, so what is left of a call's time is the client's own work: to write the request, "
    "to read the reply, and to keep count of both. "
) * 3
_USAGE = {
    "prompt_tokens": 31,
    "completion_tokens": CHUNKS,
    "total_tokens": 31 + CHUNKS,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
# Limits so high that a client that obeys them never waits.
_HEADERS = {
    "openai-organization": "an-organization",
    "openai-processing-ms": "318",
    "openai-version": "2020-10-01",
    "openai-project": "proj_an_organization",
    "x-ratelimit-limit-requests": "1000000000",
    "x-ratelimit-limit-tokens": "1000000000000",
    "x-ratelimit-remaining-requests": "999999999",
    "x-ratelimit-remaining-tokens": "999999999965",
    "x-ratelimit-reset-requests": "1ms",
    "x-ratelimit-reset-tokens": "1ms",
    "x-request-id": "req_6f1f0a6c5d1b4b7f9d6a3b0c8e2d4f51",
    "cf-cache-status": "DYNAMIC",
    "cf-ray": "8f2b6c1d9e3a4b57-FRA",
    "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
    "x-content-type-options": "nosniff",
    "alt-svc": 'h3=":443"; ma=86400',
}

# `return` has room for a short body only, and a file answers no POST: so the stream is the error page of one.
_CONF = """
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type application/json;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  scgi_temp_path {folder}; uwsgi_temp_path {folder};
  tcp_nodelay on;
  {headers}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    root {folder};
    location = /v1/chat/completions {{ return 200 '{reply}'; }}
    location = /stream/chat/completions {{ error_page 405 =200 /events; return 405; }}
    location = /events {{ types {{ }} default_type "text/event-stream; charset=utf-8"; }}
  }}
}}
"""


def completion() -> dict[str, Any]:
    """Returns the reply: about 1 kB of JSON."""
    message = {"role": "assistant", "content": _TEXT, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {**_head("chat.completion"), "choices": [choice], "usage": _USAGE, **_TAIL}


def events() -> bytes:
    """Returns the streamed reply: events of `CHUNK_BYTES` each, and its end."""
    head = _head("chat.completion.chunk")
    parts: list[bytes] = []
    for number in range(CHUNKS):
        delta = {"content": f" word{number}"} | ({"role": "assistant"} if number == 0 else {})
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        chunk = {**head, **_TAIL, "choices": [choice], "usage": None, "obfuscation": ""}
        # OpenAI pads its chunks to hide their lengths, in this field.
        chunk["obfuscation"] = "x" * (CHUNK_BYTES - len(_event(chunk)))
        parts.append(_event(chunk))
    stop = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    parts.append(_event({**head, **_TAIL, "choices": [stop], "usage": None}))
    parts.append(_event({**head, **_TAIL, "choices": [], "usage": _USAGE}))
    parts.append(b"data: [DONE]\n\n")
    return b"".join(parts)


@contextmanager
def nginx() -> Iterator[str]:
    """Yields its base URLs: /v1 answers with the completion, /stream with all its events at once."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        raise SystemExit("nginx is not installed: install the package nginx-light, or put nginx on PATH")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "events").write_bytes(events())
        port = _free_port()
        (folder / "nginx.conf").write_text(
            _CONF.format(
                folder=folder,
                port=port,
                reply=json.dumps(completion(), separators=(",", ":")).replace("'", "\\'"),
                headers="\n  ".join(f"add_header {name} '{value}';" for name, value in _HEADERS.items()),
                # Started by root, its worker would be another user, who may not read the folder.
                user="user root;" if os.geteuid() == 0 else "",
            )
        )
        command = [binary, "-p", name, "-c", str(folder / "nginx.conf"), "-g", "daemon off;", "-e", f"{name}/error.log"]
        process = subprocess.Popen(command)
        try:
            _wait_for(port, process, folder / "error.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def version() -> str:
    """nginx's own version."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or "nginx"
    return subprocess.run([binary, "-v"], capture_output=True, text=True).stderr.strip().rpartition("/")[2]


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nginx did not start: {log.read_text() if log.exists() else process.returncode}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-Cd0AbcDefGhiJklMnoPqrStu", "object": kind, "created": 1760000000, "model": MODEL}


_TAIL = {"service_tier": "default", "system_fingerprint": "fp_0123456789"}
