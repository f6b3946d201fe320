"""Generation on a CUDA GPU: the engine, and bare transformers with continuous batching and with static batches.

    python benchmarks/cuda_generation.py [model] [override ...]

`model` is an option of the group `model` with safetensors that completes texts. 96 completions, 32 in flight, greedy,
with prompts of 8 to 400 words and answers of 16 to 256 tokens, in the same mixed order for everybody; a peer's static
batch ends with its longest answer. Tokens of answers a second, prompts and everything else included. All run in
bfloat16, with flash attention where it is installed. Nothing is measured without a GPU.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contest import contest, machine, serve, table

MODEL = "tinyllama-1.1b-chat"
REQUESTS = 96
AT_ONCE = 32
DEVICE = "cuda"
WORDS = ["tea", "harbour", "winter", "copper", "letter", "garden", "engine", "river", "market", "silver", "window",
         "teacher", "village", "morning", "paper", "bridge", "captain", "orange", "forest"]  # fmt: skip
Ask = tuple[str, int]
"""A prompt and the most tokens of its answer."""


def asks(round: int) -> list[Ask]:
    """Returns other prompts in each round, which would be cached otherwise."""
    chance = random.Random(round)
    return [
        (
            f"{round}.{place} " + " ".join(chance.choices(WORDS, k=min(400, 8 + int(chance.expovariate(1 / 80))))),
            min(256, 16 + int(chance.expovariate(1 / 60))),
        )
        for place in range(REQUESTS)
    ]


def timed(answer: Callable[[list[Ask]], int]) -> None:
    """Serves rounds: `answer` returns the number of new tokens."""
    round = 0

    def measure() -> float:
        nonlocal round
        round += 1
        todo = asks(round)
        started = time.perf_counter()
        return answer(todo) / (time.perf_counter() - started)

    serve(measure)


def through_engine(name: str, *overrides: str) -> None:
    from engine import Engine, Request

    async def run() -> None:
        async with Engine.compose([f"model={name}", f"hardware={DEVICE}", *overrides]) as engine:
            loop = asyncio.get_running_loop()

            async def together(todo: list[Ask]) -> int:
                rest = iter(todo)

                async def work() -> int:
                    tokens = 0
                    for prompt, most in rest:
                        body = {"prompt": prompt, "max_tokens": most, "temperature": 0}
                        result = await engine.submit(Request("completion", body))
                        assert result.usage is not None, result.error
                        tokens += result.usage.output_tokens or 0
                    return tokens

                return sum(await asyncio.gather(*(work() for _ in range(AT_ONCE))))

            def answer(todo: list[Ask]) -> int:
                return asyncio.run_coroutine_threadsafe(together(todo), loop).result()

            # `serve` blocks on its input, so it runs next to the loop
            await asyncio.to_thread(timed, answer)

    asyncio.run(run())


def loaded(path: str) -> tuple[Any, Any]:
    """Loads the model and its tokenizer, with the attention that the engine would use."""
    import torch
    import transformers

    from engine.runtimes.torch import paged

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).to(DEVICE).eval()
    model.set_attn_implementation(paged.attentions(model)[0])
    return model, transformers.AutoTokenizer.from_pretrained(path)


def continuous(path: str) -> None:
    """Runs transformers' own manager, with all requests of a round at once."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    model, tokenizer = loaded(path)
    generation = GenerationConfig(do_sample=False, eos_token_id=model.generation_config.eos_token_id)
    config = ContinuousBatchingConfig(max_requests_per_batch=AT_ONCE, auto_switch_to_flash=False)
    with model.continuous_batching_context_manager(generation, continuous_batching_config=config) as manager:

        def answer(todo: list[Ask]) -> int:
            for prompt, most in todo:
                manager.add_request(tokenizer(prompt, add_special_tokens=False).input_ids, max_new_tokens=most)
            tokens = 0
            for _ in todo:
                while (result := manager.get_result(timeout=1)) is None:
                    assert manager.is_running(), "transformers' manager ended"
                assert result.error is None, result.error
                tokens += len(result.generated_tokens)
            return tokens

        timed(answer)


def static(path: str) -> None:
    """Runs `generate` for 32 prompts at a time in the order of arrival, padded on the left."""
    import torch

    model, tokenizer = loaded(path)
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]

    def answer(todo: list[Ask]) -> int:
        tokens = 0
        for start in range(0, len(todo), AT_ONCE):
            batch = todo[start : start + AT_ONCE]
            texts = [prompt for prompt, _ in batch]
            read = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt").to(DEVICE)
            most = max(most for _, most in batch)
            with torch.inference_mode():
                found = model.generate(
                    **read, do_sample=False, max_new_tokens=most, pad_token_id=tokenizer.pad_token_id
                )
            for (_, wanted), row in zip(batch, found[:, read.input_ids.shape[1] :].tolist(), strict=True):
                end = next((place + 1 for place, token in enumerate(row) if token in ends), len(row))
                tokens += min(wanted, end)
        return tokens

    timed(answer)


def main(name: str, *overrides: str) -> None:
    import torch

    if not torch.cuda.is_available():
        raise SystemExit(
            "this machine has no CUDA GPU, so there is nothing to measure. Next: run it where there is one"
        )
    from engine.artifacts.resolve import fetch
    from engine.config.compose import compose

    path = str(fetch(compose([f"model={name}"]).spec.model, ("safetensors",)).path)
    me = [sys.executable, str(Path(__file__).resolve())]
    bare = "transformers, continuous batching"
    off = "hardware.continuous_batching=false"
    contenders = {
        bare: [*me, "continuous", path],
        "transformers, static batches": [*me, "static", path],
        "engine": [*me, "engine", name, *overrides],
        f"engine {off}": [*me, "engine", name, *overrides, off],
    }
    print(f"{machine('torch', 'transformers')}; {torch.cuda.get_device_name()}, {name}")
    # One after another, or each would take its share of the GPU's memory.
    results = {label: contest({label: command}, rounds=5)[label] for label, command in contenders.items()}
    print(f"\n{table(results, 'tokens/s', bare)}")


if __name__ == "__main__":
    kinds: dict[str, Callable[..., None]] = {"engine": through_engine, "continuous": continuous, "static": static}
    if sys.argv[1:2] and sys.argv[1] in kinds:
        kinds[sys.argv[1]](*sys.argv[2:])
    else:
        main(*(sys.argv[1:] or [MODEL]))
