"""The engine as a library: python examples/library.py [OVERRIDE …], such as provider=simulated.

Without an override it answers with a model in this process, as `python -m engine` does.
"""

from __future__ import annotations

import asyncio
import sys

from engine import Engine, InferenceError, Request


def ask(text: str) -> Request:
    return Request("chat", {"messages": [{"role": "user", "content": text}], "max_tokens": 32})


async def main(overrides: list[str]) -> None:
    async with Engine.compose(overrides) as engine:
        result = await engine.submit(ask("What is the capital of France?"))
        if result.ok:
            print("one:", result.text)
        else:
            print("one failed:", result.error)  # a failed inference is a result, not an exception

        print("stream:", end=" ")
        try:
            async for chunk in engine.stream(ask("Name three colours.")):
                print(chunk.text, end="", flush=True)
        except InferenceError as error:  # a stream that can't be brought to a true end
            print(f"[cut: {error.kind}]", end="")
        print()

        questions = (ask(f"What is {n} + {n}?") for n in range(1, 4))
        async for answer in engine.map(questions):
            print("many:", "ok" if answer.ok else answer.error)

        report = engine.report()
        print("report:", report["requests"], "requests,", report["ok"], "ok,", report["tokens"])


def plain(overrides: list[str]) -> None:
    """The same without async: handlers by model and endpoint, from any thread."""
    with Engine.compose(overrides) as engine:
        handlers = engine.endpoint_handler
        model = next(iter(handlers))
        result = handlers(model, "chat")("Say hello.", max_tokens=8)
        print("plain:", model, "ok" if result.ok else result.error)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
    plain(sys.argv[1:])
