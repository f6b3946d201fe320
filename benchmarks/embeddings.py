"""Sentence embeddings: all-MiniLM-L6-v2 through the whole engine, 32 requests in flight, and through its own library.

    python benchmarks/embeddings.py

The peer is sentence-transformers, float32 torch, `encode` with batches of 32, the same sentences of 16 tokens. The
engine's path is the whole of it: `Engine.submit` a sentence, or 32 together as the peer gets them, the chain with its
default policy, batching, the runtime, the OpenAI reply. For orientation, the compiled models alone, called in batches
of 32 with tokens that are ready: what this machine's arithmetic allows. Cosine is to the peer's vectors, the worst of
64 sentences.
"""

from __future__ import annotations

import asyncio
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

from contest import contest, has_nncf, machine, peer_python, serve, table

IN_FLIGHT = 32
GOODS = ("tea", "coffee", "sugar", "salt", "rice", "bread", "milk", "wine", "oil", "wool", "silk", "gold")
TOWNS = ("london", "paris", "rome", "berlin", "madrid", "vienna", "athens", "dublin")
SENTENCES = [
    f"the price of {first} and the price of {second} rose in {town} this year"
    for first, second, town in list(product(GOODS, GOODS, TOWNS))[:768]
]
"""16 tokens each, with the two at the ends. Of one length, so that sorting gains nothing."""


def engine_on(together: int, *words: str) -> None:
    """`together`: sentences in a request."""
    from engine import Engine, Request

    async def run() -> None:
        async with Engine.compose(["model=minilm-l6", *words]) as engine:
            loop = asyncio.get_running_loop()
            vectors: list[Any] = [None] * len(SENTENCES)

            async def answer(todo: Any) -> None:
                for first in todo:
                    result = await engine.submit(Request("embedding", {"input": SENTENCES[first : first + together]}))
                    vectors[first : first + together] = [each["embedding"] for each in result.body["data"]]

            async def measure() -> dict[str, object]:
                started = time.perf_counter()
                todo = iter(range(0, len(SENTENCES), together))
                await asyncio.gather(*(answer(todo) for _ in range(max(4, IN_FLIGHT // together))))
                rate = len(SENTENCES) / (time.perf_counter() - started)
                return {"figure": rate, "vectors": vectors[:64]}

            # `serve` blocks on its input, so it runs next to the loop
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


def bare(kind: str, path: str) -> None:
    """Runs the model alone: no tokenizer, no engine."""
    import numpy as np
    import torch
    from transformers import AutoModel

    tokens = np.random.default_rng(0).integers(1000, 20000, (IN_FLIGHT, 16))
    calls = len(SENTENCES) // IN_FLIGHT

    def with_torch() -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            for _ in range(calls):
                model(input_ids=torch.from_numpy(tokens)).last_hidden_state.mean(1)
        return calls * IN_FLIGHT / (time.perf_counter() - started)

    def with_openvino() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            queue.start_async([tokens.astype(np.int32), np.ones_like(tokens, np.int32)])
        queue.wait_all()
        return calls * IN_FLIGHT / (time.perf_counter() - started)

    if kind == "torch":
        model = AutoModel.from_pretrained(path, dtype=torch.bfloat16).eval()
        serve(with_torch)
    else:
        import openvino as ov

        from engine.runtimes.embedding import model as sentence_model
        from engine.runtimes.openvino.bert_graph import build

        graph = build(Path(path), sentence_model.read(Path(path), None))
        settings = {"INFERENCE_PRECISION_HINT": "bf16", "NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "2"}
        queue = ov.AsyncInferQueue(ov.Core().compile_model(graph, "CPU", settings), 4)
        serve(with_openvino)


def main() -> None:
    import numpy as np

    from engine.artifacts.resolve import fetch
    from engine.config.compose import compose

    path = fetch(compose(["model=minilm-l6"]).spec.model, ("safetensors",)).path
    me = str(Path(__file__).resolve())
    engine = [sys.executable, me, "engine"]
    full = ["hardware=openvino", "hardware.quantization=int8_full"]
    results = contest(
        {
            "sentence-transformers, float32": [peer_python("sentence-transformers==5.7.0"), me, "peer", str(path)],
            "engine hardware=cpu (torch)": [*engine, "1", "hardware=cpu"],
            "engine hardware=cpu, 32 a request": [*engine, "32", "hardware=cpu"],
            "engine hardware=openvino": [*engine, "1", "hardware=openvino"],
            "engine hardware=openvino, 32 a request": [*engine, "32", "hardware=openvino"],
            **({"engine hardware=openvino, int8_full, 32 a request": [*engine, "32", *full]} if has_nncf() else {}),
            "the model alone, torch bfloat16": [sys.executable, me, "bare", "torch", str(path)],
            "the model alone, OpenVINO bfloat16": [sys.executable, me, "bare", "openvino", str(path)],
        }
    )
    print(machine("torch", "openvino", "transformers"))
    print(table(results, "sentences/s", "sentence-transformers, float32"))
    reference = np.array(results["sentence-transformers, float32"].extra["vectors"])
    for name, contender in results.items():
        if "vectors" not in contender.extra:
            continue
        vectors = np.array(contender.extra["vectors"])
        print(f"worst cosine to float32, {name}: {float((vectors * reference).sum(1).min()):.5f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["engine"]:
        engine_on(int(sys.argv[2]), *sys.argv[3:])
    elif sys.argv[1:2] == ["peer"]:
        peer(sys.argv[2])
    elif sys.argv[1:2] == ["bare"]:
        bare(sys.argv[2], sys.argv[3])
    else:
        main()
