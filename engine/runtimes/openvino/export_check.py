"""Checks that OpenVINO GenAI generates with a graph like torch, before the graph is kept.

Both read the same prompt. GenAI generates some tokens, and torch checks for each whether it would have chosen it, too,
and with the same probability. A window of attention or a scaled rotary embedding shows only after more tokens than it
spans, so the prompt is longer than that, if the model can read it in some seconds.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from engine.runtimes.openvino import signal_stack

GENERATED_TOKENS = 8
PROMPT_TOKENS = 12
"""Tokens of the prompt at least, and beyond a window."""
MOST_TOKENS = 1024
MOST_WORK = 6e11
"""Largest check of a window, in tokens times parameters: some seconds on two processors."""
_WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")

log = logging.getLogger("engine.runtimes")


def prompt_of(model: Any) -> torch.Tensor:
    """Returns the ids of the check's prompt, shape (1, tokens): longer than a window, if that is fast enough.

    Warns of windows that are too large to be checked.
    """
    turns = set(_turns(model.config.get_text_config()))
    most = min(MOST_TOKENS, int(MOST_WORK / model.num_parameters()))
    if late := sorted(turn for turn in turns if turn > most):
        log.warning(
            "%s: what changes after %s tokens (a window of attention, scaled positions) is not compared with torch",
            type(model).__name__,
            " and ".join(map(str, late)),
        )
    length = max((turn for turn in turns if turn <= most), default=0) + PROMPT_TOKENS
    return torch.arange(3, 3 + length)[None] % model.config.get_text_config().vocab_size


def _turns(config: Any) -> Iterator[int]:
    """Returns the number of tokens after which the model computes differently."""
    positions = getattr(config, "max_position_embeddings", None)
    for name in _WINDOWS:
        window = getattr(config, name, None)
        # A window that is as long as the context changes nothing, and a longer prompt may have no positions.
        if window and (positions is None or window + PROMPT_TOKENS + GENERATED_TOKENS <= positions):
            yield window
    scaling = getattr(config, "rope_parameters", None) or {}
    for each in (scaling, *scaling.values()):  # one for all layers, or one for each kind of them
        if not isinstance(each, dict):
            continue
        if each.get("original_max_position_embeddings"):
            yield each["original_max_position_embeddings"]
        elif positions and "dynamic" in each.get("rope_type", ""):
            yield positions


def away(model: Any, folder: Path, prompt: torch.Tensor) -> float:
    """Returns GenAI's largest distance from torch, as a share of torch's largest logit.

    For each token that GenAI chose: the distance of its logit in torch from torch's best one, and the distance between
    the two logarithms of its probability. Raises RuntimeError when GenAI can't run the graph.
    """
    chosen, sure = _generated(folder, prompt)
    tokens = torch.tensor([chosen])
    # Logits of the whole prompt would take more memory than the model, with a large vocabulary.
    kept = {"logits_to_keep": GENERATED_TOKENS + 1} if "logits_to_keep" in _arguments(model) else {}
    with torch.no_grad():
        logits = model(input_ids=torch.cat([prompt, tokens], dim=1), **kept).logits
    logits = logits[0, -GENERATED_TOKENS - 1 : -1].float()
    taken = logits.gather(1, tokens.T)[:, 0]
    behind = logits.max(dim=1).values - taken
    apart = (taken - logits.logsumexp(dim=1) - torch.tensor(sure)).abs()
    return float((torch.maximum(behind, apart) / logits.abs().max(dim=1).values.clamp_min(1e-12)).max())


def _arguments(model: Any) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


@signal_stack.kept()
def _generated(folder: Path, prompt: torch.Tensor) -> tuple[list[int], list[float]]:
    """Returns the likeliest tokens after the prompt and the logarithms of their probabilities, by continuous batching
    in float32. Raises RuntimeError."""
    import openvino
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 1
    scheduler.enable_prefix_caching = False
    exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    pipeline = openvino_genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", exact)
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = GENERATED_TOKENS
    config.ignore_eos = True
    config.logprobs = 1
    handle = pipeline.add_request(0, openvino.Tensor(prompt.numpy()), config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    answer = handle.read_all()[0]
    return list(answer.generated_ids), list(answer.generated_log_probs)
