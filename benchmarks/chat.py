"""Chat: SmolLM2-135M-Instruct, one request alone and eight at once, through the whole engine and through its peers.

    python benchmarks/chat.py

64 new tokens a request, greedy, a different prompt every time (a repeated one would be cached), the same prompts for
everybody; the time from the first request to the last token, prompts included. Peers: llama.cpp's server over loopback
(xllamacpp, the same GGUF file), bare OpenVINO GenAI (ContinuousBatchingPipeline) on what the engine gives it, and
transformers' generate in float32. `GGUF` is the file's own 4-bit weights; `int8` are the file's values as safetensors,
which the engine exports with 8-bit weights.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contest import contest, has_nncf, machine, serve, table

AT_ONCE = 8
TOKENS = 64


def prompts(round: int, count: int) -> list[list[dict[str, str]]]:
    return [
        [{"role": "user", "content": f"Write a long story, number {round * 8 + n}, about city {n * 13 + round}."}]
        for n in range(count)
    ]


def timed(count: int, answer: Callable[[list[list[dict[str, str]]]], int]) -> None:
    """Serves rounds: `answer` gets the chats, returns the number of new tokens."""
    round = 0

    def measure() -> float:
        nonlocal round
        round += 1
        chats = prompts(round, count)
        started = time.perf_counter()
        tokens = answer(chats)
        seconds = time.perf_counter() - started
        assert tokens > count * TOKENS // 2, f"only {tokens} tokens: stories ended early"
        return tokens / seconds

    serve(measure)


def through_engine(count: int, *overrides: str) -> None:
    from engine import Engine, Request

    async def run() -> None:
        async with Engine.compose(["hardware=openvino", "hardware.prefix_caching=false", *overrides]) as engine:
            loop = asyncio.get_running_loop()

            async def ask(chat: list[dict[str, str]]) -> int:
                body = {"messages": chat, "max_tokens": TOKENS, "temperature": 0}
                result = await engine.submit(Request("chat", body))
                assert result.usage is not None, result.error
                return result.usage.output_tokens or 0

            async def together(chats: list[list[dict[str, str]]]) -> int:
                return sum(await asyncio.gather(*map(ask, chats)))

            def answer(chats: list[list[dict[str, str]]]) -> int:
                return asyncio.run_coroutine_threadsafe(together(chats), loop).result()

            # `serve` blocks on its input, so it runs next to the loop
            await asyncio.to_thread(timed, count, answer)

    asyncio.run(run())


def bare(count: int, path: str) -> None:
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.cache_size, scheduler.enable_prefix_caching, scheduler.max_num_seqs = 1, False, 32
    pipeline = genai.ContinuousBatchingPipeline(path, scheduler, "CPU", {})
    tokenizer = pipeline.get_tokenizer()

    def answer(chats: list[list[dict[str, str]]]) -> int:
        texts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
        found: Any = pipeline.generate(texts, [genai.GenerationConfig(max_new_tokens=TOKENS)] * len(chats))
        tokens: int = found[0].perf_metrics.get_num_generated_tokens()  # of all prompts of the call
        return tokens

    timed(count, answer)


def llama_cpp(count: int, path: str) -> None:
    import os
    from concurrent.futures import ThreadPoolExecutor

    import httpx
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_parallel, params.port = 512 * count, count, 0
    params.cpuparams.n_threads = os.cpu_count() or 1
    params.n_gpu_layers, params.verbosity = 0, 0
    server = xllamacpp.Server(params)
    client = httpx.Client(base_url=server.listening_address, timeout=120, trust_env=False)
    desk = ThreadPoolExecutor(count)

    def ask(chat: list[dict[str, str]]) -> int:
        body = {"messages": chat, "max_tokens": TOKENS, "temperature": 0}
        reply = client.post("/v1/chat/completions", json=body).json()
        tokens: int = reply["usage"]["completion_tokens"]
        return tokens

    timed(count, lambda chats: sum(desk.map(ask, chats)))


def transformers_(count: int, folder: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    pad = tokenizer.pad_token_id or tokenizer.eos_token_id

    def answer(chats: list[list[dict[str, str]]]) -> int:
        texts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            found = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, pad_token_id=pad)
        return int((found[:, inputs.input_ids.shape[1] :] != pad).sum())

    timed(count, answer)


def as_safetensors(gguf: Path, folder: Path) -> None:
    """Returns the GGUF file's values."""
    import torch

    from engine.runtimes.torch import gguf as torch_gguf

    model, tokenizer = torch_gguf.load(gguf, torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    from engine.artifacts.resolve import Artifact, fetch
    from engine.config.compose import compose
    from engine.runtimes.openvino import export

    gguf = fetch(compose(["model=smollm2-135m"]).spec.model, ("gguf",)).path
    me = str(Path(__file__).resolve())
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        as_safetensors(gguf, folder)
        exported = str(export.exported(Artifact(folder, "safetensors", "x"), "int8").path) if has_nncf() else ""
        source = f"model.sources=[{{kind: file, path: {folder}, format: safetensors}}]"
        for count, when in ((1, "alone"), (AT_ONCE, f"{AT_ONCE} at once")):
            ask = [sys.executable, me]
            int8 = {
                "OpenVINO GenAI, int8": [*ask, "bare", str(count), exported],
                "engine, int8": [*ask, "through_engine", str(count), source, "hardware.quantization=int8"],
            }
            results = contest(
                {
                    "llama.cpp, GGUF": [*ask, "llama_cpp", str(count), str(gguf)],
                    "OpenVINO GenAI, GGUF": [*ask, "bare", str(count), str(gguf)],
                    "engine, GGUF": [*ask, "through_engine", str(count)],
                    **(int8 if exported else {}),
                    "transformers, float32": [*ask, "transformers_", str(count), str(folder)],
                },
                rounds=7,
            )
            print(f"\n{when}:\n")
            print(table(results, "tokens/s", "llama.cpp, GGUF"))
            for kind in ("GGUF", *(["int8"] if exported else [])):
                share = results[f"engine, {kind}"].median / results[f"OpenVINO GenAI, {kind}"].median
                print(f"- engine over bare OpenVINO GenAI, {kind}: {share:.2f}×")
    print(machine("openvino", "openvino-genai", "transformers", "xllamacpp"))


if __name__ == "__main__":
    if sys.argv[1:]:
        globals()[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])
    else:
        main()
