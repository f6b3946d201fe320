"""HTTP: CPU time a chat call, 64 in flight, through the whole engine and through bare clients.

    python benchmarks/transports.py

The server is a process of its own on loopback that answers every POST with the same completion. Every contender sends
the same body and decodes the reply. The figure is the client's own CPU time a call, in microseconds.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from contest import contest, machine, serve, table

IN_FLIGHT = 64
CALLS = 4000
BODY = {"model": "m", "messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 16}
REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10},
}


async def server() -> None:
    content = json.dumps(REPLY).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n".encode()

    class Answer(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport, self.data = transport, b""

        def data_received(self, data: bytes) -> None:
            self.data += data
            while (end := self.data.find(b"\r\n\r\n")) >= 0:
                size = int(self.data[:end].lower().partition(b"content-length:")[2].split(b"\r")[0])
                if len(self.data) < end + 4 + size:
                    return
                self.data = self.data[end + 4 + size :]
                self.transport.write(head + content)

    listening = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


async def load(call: Callable[[], Awaitable[Any]]) -> float:
    left = iter(range(CALLS))

    async def worker() -> None:
        for _ in left:
            await call()

    started = time.process_time()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return (time.process_time() - started) / CALLS * 1e6


async def contender(kind: str, url: str) -> None:
    loop = asyncio.get_running_loop()

    async def measured(call: Callable[[], Awaitable[Any]]) -> None:
        await asyncio.to_thread(serve, lambda: asyncio.run_coroutine_threadsafe(load(call), loop).result())

    if kind.startswith("engine"):
        from engine import Engine, Request

        transport = kind.partition("-")[2]
        words = ["provider=llama_cpp", f"provider.base_url={url}", f"provider.transport.kind={transport}"]
        async with Engine.compose([*words, "model=remote", "model.name=m"]) as engine:
            result = await engine.submit(Request("chat", BODY))
            assert result.ok, result.error
            await measured(lambda: engine.submit(Request("chat", BODY, id="x")))
    elif kind == "aiohttp":
        import aiohttp

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def call() -> Any:
                async with session.post(f"{url}/chat/completions", json=BODY) as reply:
                    return await reply.json()

            await measured(call)
    else:
        import httpx

        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None)) as client:

            async def post() -> Any:
                return (await client.post(f"{url}/chat/completions", json=BODY)).json()

            await measured(post)


def main() -> None:
    me = str(Path(__file__).resolve())
    answering = subprocess.Popen([sys.executable, me, "server"], stdout=subprocess.PIPE, text=True)
    try:
        assert answering.stdout is not None
        url = f"http://127.0.0.1:{answering.stdout.readline().strip()}/v1"
        kinds = {
            "bare aiohttp": "aiohttp",
            "engine, aiohttp": "engine-aiohttp",
            "bare httpx": "httpx",
            "engine, httpx": "engine-httpx",
        }
        results = contest({name: [sys.executable, me, kind, url] for name, kind in kinds.items()})
    finally:
        answering.kill()
        answering.wait()
    print(machine("aiohttp", "httpx", "msgspec"))
    print(table(results, "µs CPU a call", "bare aiohttp"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["server"]:
        asyncio.run(server())
    elif len(sys.argv) == 3:
        asyncio.run(contender(sys.argv[1], sys.argv[2]))
    else:
        main()
