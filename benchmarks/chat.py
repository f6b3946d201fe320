"""Chat: SmolLM2-135M-Instruct through the whole engine and through bare OpenVINO GenAI, from the same GGUF file.

    python benchmarks/chat.py

Eight requests at once, 64 new tokens each, greedy, a different prompt every time (a repeated one would be cached), the
same prompts for everybody. The peer is OpenVINO GenAI's ContinuousBatchingPipeline.generate with the same scheduler.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from contest import contest, machine, serve, table

AT_ONCE = 8
TOKENS = 64


def prompts(round: int) -> list[str]:
    return [
        f"Write a long story, number {round * AT_ONCE + n}, about a traveller in city {n * 13 + round}."
        for n in range(AT_ONCE)
    ]


def through_engine(together: bool) -> None:
    from engine import Engine, Request

    async def run() -> None:
        async with Engine.compose(["hardware=openvino", "hardware.prefix_caching=false"]) as engine:
            loop = asyncio.get_running_loop()
            round = 0

            async def ask(prompt: str) -> int:
                body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": TOKENS, "temperature": 0}
                result = await engine.submit(Request("chat", body))
                assert result.usage is not None, result.error
                return result.usage.output_tokens

            async def measure() -> float:
                nonlocal round
                round += 1
                asked = prompts(round) if together else prompts(round)[:2]
                started = time.perf_counter()
                if together:
                    tokens = sum(await asyncio.gather(*map(ask, asked)))
                else:
                    tokens = sum([await ask(prompt) for prompt in asked])
                return tokens / (time.perf_counter() - started)

            await asyncio.to_thread(serve, lambda: asyncio.run_coroutine_threadsafe(measure(), loop).result())

    asyncio.run(run())


def bare(path: str) -> None:
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.cache_size, scheduler.enable_prefix_caching, scheduler.max_num_seqs = 1, False, 32
    pipeline = genai.ContinuousBatchingPipeline(path, scheduler, "CPU", {})
    tokenizer = pipeline.get_tokenizer()
    round = 0

    def measure() -> float:
        nonlocal round
        round += 1
        config = genai.GenerationConfig(max_new_tokens=TOKENS)
        texts = [
            tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
            for prompt in prompts(round)
        ]
        started = time.perf_counter()
        found: Any = pipeline.generate(texts, [config] * AT_ONCE)
        seconds = time.perf_counter() - started
        tokens: int = found[0].perf_metrics.get_num_generated_tokens()  # of all prompts of the call
        return tokens / seconds

    serve(measure)


def main() -> None:
    from engine.artifacts import fetch
    from engine.compose import compose

    path = fetch(compose(["model=smollm2-135m"]).spec.model, ("gguf",)).path
    me = str(Path(__file__).resolve())
    results = contest(
        {
            "bare OpenVINO GenAI, 8 at once": [sys.executable, me, "bare", str(path)],
            "engine, 8 at once": [sys.executable, me, "engine", "together"],
            "engine, one after the other": [sys.executable, me, "engine", "alone"],
        },
        rounds=9,
    )
    print(machine("openvino", "openvino-genai"))
    print(table(results, "tokens/s", "bare OpenVINO GenAI, 8 at once"))
    both = results["engine, 8 at once"].median / results["engine, one after the other"].median
    print(f"8 at once over one after the other, through the engine: {both:.2f}×")


if __name__ == "__main__":
    if sys.argv[1:2] == ["engine"]:
        through_engine(sys.argv[2] == "together")
    elif sys.argv[1:2] == ["bare"]:
        bare(sys.argv[2])
    else:
        main()
