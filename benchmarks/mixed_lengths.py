"""Sentence embeddings of mixed lengths: buckets of similar length against batches in the order that texts come.

    python benchmarks/mixed_lengths.py

768 texts of 4 to 120 words, most of them short, in an order that has nothing to do with length. The peer is the same
model on the same hardware and in the same arithmetic, called with 32 texts at a time padded to the longest, tokenizer
included. The engine gets the texts 32 to a request, 8 requests in flight, through the whole chain. Cosine is between
the two, the worst of all texts.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import Any

from contest import contest, machine, serve, table

ROWS = 32
IN_FLIGHT = 8
WORDS = ["tea", "harbour", "winter", "copper", "letter", "garden", "engine", "river", "market", "silver", "window",
         "teacher", "village", "morning", "paper", "bridge", "captain", "orange", "forest"]  # fmt: skip


def texts() -> list[str]:
    chance = random.Random(7)
    lengths = [min(120, 4 + int(chance.expovariate(1 / 24))) for _ in range(768)]
    return [" ".join(chance.choices(WORDS, k=length)) for length in lengths]


TEXTS = texts()
REQUESTS = [TEXTS[start : start + ROWS] for start in range(0, len(TEXTS), ROWS)]


def engine_on(hardware: str) -> None:
    from engine import Engine, Request

    async def run() -> None:
        async with Engine.compose(["model=minilm-l6", f"hardware={hardware}"]) as engine:
            loop = asyncio.get_running_loop()
            vectors: list[Any] = [None] * len(REQUESTS)

            async def answer(todo: Any) -> None:
                for index in todo:
                    result = await engine.submit(Request("embedding", {"input": REQUESTS[index]}))
                    vectors[index] = [item["embedding"] for item in result.body["data"]]

            async def measure() -> dict[str, object]:
                started = time.perf_counter()
                todo = iter(range(len(REQUESTS)))
                await asyncio.gather(*(answer(todo) for _ in range(IN_FLIGHT)))
                rate = len(TEXTS) / (time.perf_counter() - started)
                return {"figure": rate, "vectors": [vector for some in vectors for vector in some]}

            # `serve` blocks on its input, so it runs next to the loop
            await asyncio.to_thread(serve, lambda: asyncio.run_coroutine_threadsafe(measure(), loop).result())

    asyncio.run(run())


def fixed(hardware: str, path: str) -> None:
    """Runs the same encoder's own compute, a request a batch."""
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from engine.runtimes.embedding import model
    from engine.runtimes.embedding.encoder import Forward
    from engine.schemas.hardware import CpuHardwareSpec, OpenVinoHardwareSpec

    settings = model.read(Path(path), None)
    forward: Forward
    if hardware == "cpu":
        from engine.runtimes.torch.encoder import TorchForward

        forward = TorchForward(Path(path), settings, CpuHardwareSpec(kind="cpu"))
    else:
        from engine.runtimes.openvino.encoder import OpenVinoForward

        forward = OpenVinoForward(Path(path), settings, OpenVinoHardwareSpec(kind="openvino"))
    made = model.tokenizer(Path(path), settings.max_tokens)
    pool = ThreadPoolExecutor(forward.threads)

    def batch(some: list[str]) -> Any:
        return forward(*model.padded(model.read_texts(made, some).ids, forward.dtype))

    def measure() -> dict[str, object]:
        started = time.perf_counter()
        vectors = np.concatenate(list(pool.map(batch, REQUESTS)))
        return {"figure": len(TEXTS) / (time.perf_counter() - started), "vectors": vectors.tolist()}

    serve(measure)


def main() -> None:
    import numpy as np

    from engine.artifacts.resolve import fetch
    from engine.config.compose import compose

    path = fetch(compose(["model=minilm-l6"]).spec.model, ("safetensors",)).path
    me = str(Path(__file__).resolve())
    print(machine("torch", "openvino", "transformers"))
    for hardware in ("cpu", "openvino"):
        peer, ours = f"fixed batches of {ROWS}, {hardware}", f"engine hardware={hardware}"
        results = contest(
            {
                peer: [sys.executable, me, "fixed", hardware, str(path)],
                ours: [sys.executable, me, "engine", hardware],
            }
        )
        print(f"\n{table(results, 'texts/s', peer)}")
        found, wanted = (np.array(results[name].extra["vectors"]) for name in (ours, peer))
        print(f"- worst cosine between the two: {float((found * wanted).sum(1).min()):.5f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["engine"]:
        engine_on(sys.argv[2])
    elif sys.argv[1:2] == ["fixed"]:
        fixed(sys.argv[2], sys.argv[3])
    else:
        main()
