"""Sentence embeddings: all-MiniLM-L6-v2 through the whole engine, 32 requests in flight, and through its own library.

    python benchmarks/embeddings.py

The peer is sentence-transformers, float32 torch, `encode` with batches of 32, the same sentences. The engine's path is
the whole of it: `Engine.submit` a sentence, the chain with its default policy, batching, the runtime, the OpenAI reply.
Cosine is to the peer's vectors, the worst of all sentences.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from contest import contest, machine, peer_python, serve, table

IN_FLIGHT = 32
SENTENCES = [
    f"sentence number {n} is about the price of tea and other goods in {n * 7} cities of the world" for n in range(768)
]


def engine_on(hardware: str) -> None:
    from engine import Engine, Request

    async def run() -> None:
        async with Engine.compose(["model=minilm-l6", f"hardware={hardware}"]) as engine:
            loop = asyncio.get_running_loop()
            vectors: list[Any] = [None] * len(SENTENCES)

            async def answer(todo: Any) -> None:
                for index in todo:
                    result = await engine.submit(Request("embedding", {"input": SENTENCES[index]}))
                    vectors[index] = result.body["data"][0]["embedding"]

            async def measure() -> dict[str, object]:
                started = time.perf_counter()
                todo = iter(range(len(SENTENCES)))
                await asyncio.gather(*(answer(todo) for _ in range(IN_FLIGHT)))
                rate = len(SENTENCES) / (time.perf_counter() - started)
                return {"figure": rate, "vectors": vectors[:64]}

            # `serve` blocks on its input, so it runs beside the loop
            await asyncio.to_thread(serve, lambda: asyncio.run_coroutine_threadsafe(measure(), loop).result())

    asyncio.run(run())


def peer(path: str) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(path, device="cpu")

    def measure() -> dict[str, object]:
        started = time.perf_counter()
        vectors = model.encode(SENTENCES, batch_size=IN_FLIGHT, show_progress_bar=False)
        return {"figure": len(SENTENCES) / (time.perf_counter() - started), "vectors": vectors[:64].tolist()}

    serve(measure)


def main() -> None:
    import numpy as np

    from engine.artifacts import fetch
    from engine.compose import compose

    path = fetch(compose(["model=minilm-l6"]).spec.model, ("safetensors",)).path
    me = str(Path(__file__).resolve())
    results = contest(
        {
            "sentence-transformers, float32": [peer_python("sentence-transformers==5.7.0"), me, "peer", str(path)],
            "engine hardware=cpu (torch)": [sys.executable, me, "engine", "cpu"],
            "engine hardware=openvino": [sys.executable, me, "engine", "openvino"],
        }
    )
    print(machine("torch", "openvino", "transformers"))
    print(table(results, "sentences/s", "sentence-transformers, float32"))
    reference = np.array(results["sentence-transformers, float32"].extra["vectors"])
    for name, contender in results.items():
        vectors = np.array(contender.extra["vectors"])
        print(f"worst cosine to float32, {name}: {float((vectors * reference).sum(1).min()):.5f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["engine"]:
        engine_on(sys.argv[2])
    elif sys.argv[1:2] == ["peer"]:
        peer(sys.argv[2])
    else:
        main()
