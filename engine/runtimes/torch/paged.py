"""transformers' continuous batching: the models that it can run, their attention, and its managers.

A manager owns a KV cache in pages and a thread that computes one step after another for all its requests, see
transformers/generation/continuous_batching. A request's cache is a list of pages, so there is no padding.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any

import torch
from transformers import ContinuousBatchingConfig
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from engine.runtimes.memory import estimate as memory
from engine.runtimes.quiet import quiet
from engine.schemas.hardware import CudaHardwareSpec

PAGE_TOKENS = 256
"""Tokens of a page of the cache: transformers' default, and the page size of flash attention."""
PROMPT_TOKENS_A_STEP = memory.BATCH_TOKENS
"""Tokens that one step computes at most, which keeps it within the planned memory."""
FREE_SHARE = 0.9
"""Share of the free memory that a cache of a given size and its buffers may take."""
TRIAL_TOKENS = 8
BEHIND = 0.08
"""The largest distance of a token's logit from the best one ÷ the largest: another order of sums, in bfloat16."""
_OWN = (
    "bad_words_ids", "begin_suppress_tokens", "encoder_repetition_penalty", "epsilon_cutoff", "eta_cutoff",
    "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id", "guidance_scale", "min_length",
    "min_new_tokens", "no_repeat_ngram_size", "remove_invalid_values", "renormalize_logits", "sequence_bias",
    "suppress_tokens", "top_h", "typical_p", "watermarking_config",
)  # fmt: skip
"""Fields of a generation_config.json that change the output, and that requests do not set."""
_NEUTRAL: tuple[Any, ...] = (None, False, 0, 1, [])

log = logging.getLogger("engine.runtimes")


class Unsuited(Exception):
    """Raised, with the reason, for a model that is left to static batches."""


# Its own handler writes to the terminal; its reports of failures are in the requests' errors, too.
logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL + 1)


def open_manager(
    model: Any, *, sampled: bool, max_sequences: int, share: float, cache_bytes: int | None, seed: int
) -> Any:
    """A manager, its cache allocated and its CUDA graphs captured; not started. Blocks.

    `share` is of the device's free memory, for a cache without a size of its own. Raises RuntimeError (out of memory
    too), MemoryError or ValueError.
    """
    config = ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=None if cache_bytes is None else max(1, cache_bytes // page_bytes(model)),
        max_batch_tokens=max(PROMPT_TOKENS_A_STEP, max_sequences),
        max_memory_percent=share if cache_bytes is None else FREE_SHARE,
        max_requests_per_batch=max_sequences,
        per_request_processors=sampled,
        auto_switch_to_flash=False,  # `attentions` does, and it must not be undone when a manager ends
        seed=seed,
    )
    return _made(model, config, sampled)


def page_bytes(model: Any) -> int:
    """Returns the bytes of a page's keys and values in all layers. Raises ValueError for a model without such a
    cache."""
    shape = memory.shape_of(model.config.to_dict())
    if shape is None:
        raise ValueError("its config.json does not say how large its KV cache is")
    return int(2 * shape.layers * shape.kv_heads * shape.head_dim * PAGE_TOKENS * model.dtype.itemsize)


def sampling_options(temperature: float, top_p: float, top_k: int, vocabulary: int) -> dict[str, float | int]:
    """Returns a sampled request's own numbers, in the manager's types. It reads `top_k` 0 as 1, not as all."""
    return {"temperature": float(temperature), "top_p": float(top_p), "top_k": min(top_k or vocabulary, vocabulary)}


def room(manager: Any) -> int:
    """Returns the most tokens of one request, prompt and answer, that the cache holds. A larger one would end them
    all."""
    config = manager.continuous_batching_config
    return int(config.num_blocks * config.page_size)


def prepared(model: Any, hardware: CudaHardwareSpec) -> Any:
    """Returns the model as a manager runs it. Blocks for a few trial steps. Raises Unsuited."""
    if hardware.compile:
        raise Unsuited("hardware.compile compiles the model for static batches")
    if hardware.device_map != "none" or hardware.tensor_parallel:
        raise Unsuited("it is spread over several GPUs")
    if hardware.quantization in ("bnb_int8", "bnb_int4"):
        raise Unsuited("bitsandbytes keeps a state of its own in each layer")
    check(model)
    return settle(model)


def check(model: Any) -> None:
    """Raises Unsuited for models that a manager can't run, or runs wrongly without an error."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    own = [name for name in _OWN if getattr(model.generation_config, name, None) not in _NEUTRAL]
    if model.config.is_encoder_decoder:
        raise Unsuited("it has an encoder")
    if {"dynamic", "longrope"} & {rope.get("rope_type"), *_nested(rope)}:
        raise Unsuited("its positions depend on the longest text of a batch")
    if own:
        raise Unsuited(f"its generation_config.json has {', '.join(own)}")


def _nested(rope: dict[str, Any]) -> Iterator[Any]:
    """Returns the rope types of models that have one for each kind of layer."""
    for value in rope.values():
        if isinstance(value, dict):
            yield value.get("rope_type")


def attentions(model: Any) -> list[str]:
    """Returns the implementations to try: flash attention if it is installed and the GPU and the model support it;
    last, the one that the model was loaded with."""
    found = []
    if model.device.type == "cuda" and model._supports_flash_attn and model.dtype in (torch.bfloat16, torch.float16):
        generation = torch.cuda.get_device_capability(model.device)[0]
        # Only packages: transformers would also fetch kernels from the hub.
        if is_flash_attn_3_available() and generation >= 9:
            found.append("flash_attention_3")
        if is_flash_attn_2_available() and generation >= 8:
            found.append("flash_attention_2")
    return [*found, model.config._attn_implementation]


def settle(model: Any) -> Any:
    """Makes a twin with the first attention with which a manager generates like the model itself. Raises Unsuited."""
    problem = "its layers have neither torch's attention nor flash attention"
    for attention in attentions(model):
        if attention == "eager":  # slower than static batches
            continue
        try:
            paged = twin(model)
            with quiet():
                paged.set_attn_implementation(attention)
            behind = _trial(paged)
        except Exception as error:  # the boundary: any error of an architecture is the reason to leave it alone
            problem = f"{type(error).__name__}: {error}"
            continue
        if behind <= BEHIND:
            log.info("%s: continuous batching with %s", type(model).__name__, attention)
            return paged
        problem = f"with {attention} it chose a token whose logit is {behind:.2g} below the best"
    raise Unsuited(problem)


def twin(model: Any) -> Any:
    """Makes modules of their own over the same weights.

    A forward pass of transformers 5.23 changes the model's config and changes it back (`is_causal`, in
    `merge_with_config_defaults`), and some models keep more state between two passes. Threads that share a model would
    read each other's state, and answer wrongly.
    """
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def _trial(model: Any) -> float:
    """Generates after two prompts together; returns the largest distance from the best token of a plain forward
    pass."""
    width = model.config.get_text_config().vocab_size
    prompts = [[(7 + 13 * place) % width for place in range(length)] for length in (5, 12)]
    config = ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=4 * len(prompts),
        max_batch_tokens=64,
        max_memory_percent=FREE_SHARE,
        max_requests_per_batch=len(prompts),
        auto_switch_to_flash=False,
        use_cuda_graph=False,
        use_async_batching=False,
        seed=0,
    )
    manager = _made(model, config, sampled=False)
    manager.start()
    try:
        for prompt in prompts:
            manager.add_request(prompt, max_new_tokens=TRIAL_TOKENS, eos_token_id=-1)
        answers: list[Any] = []
        while len(answers) < len(prompts):
            answer = manager.get_result(timeout=0.1)
            if answer is not None and answer.error is not None:
                raise RuntimeError(answer.error)
            if answer is not None:
                answers.append(answer)
            elif not manager.is_running():
                raise RuntimeError(str(manager.background_thread_status.fatal_error))
    finally:
        end(manager)
    return max(_behind(model, answer.prompt_ids, answer.generated_tokens) for answer in answers)


def _behind(model: Any, prompt: list[int], answer: list[int]) -> float:
    ids = torch.tensor([prompt + answer], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    chosen = logits.gather(1, ids[0, len(prompt) :, None])[:, 0]
    return float(((logits.amax(1) - chosen) / logits.abs().amax(1).clamp_min(1e-12)).max())


def _made(model: Any, config: ContinuousBatchingConfig, sampled: bool) -> Any:
    model = twin(model)
    if model.device.type == "cuda":
        torch.cuda.set_device(model.device)  # for this thread; the manager measures and allocates on the current device
    with quiet():
        manager = model.init_continuous_batching(_generation_config(model, sampled), config)
        manager.warmup()  # makes the cache here, where its errors can be caught
    return manager


def _generation_config(model: Any, sampled: bool) -> Any:
    """Returns the model's generation config without fields that requests set. A request overrides each number here."""
    config = copy.deepcopy(model.generation_config)
    numbers = (
        {"temperature": 0.5, "top_k": 1, "top_p": 0.5} if sampled else dict.fromkeys(("temperature", "top_k", "top_p"))
    )
    said = {"do_sample": sampled, "min_p": None, "repetition_penalty": None, "num_return_sequences": 1, **numbers}
    for name, value in said.items():
        setattr(config, name, value)
    return config


def end(manager: Any) -> None:
    """Ends its thread and frees its cache. Blocks for a step."""
    with quiet():
        manager.stop(block=True, hard_stop=True)
        manager.destroy()
