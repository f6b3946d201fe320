"""Greedy generation by whole forward passes: the same loop for every hardware, so that tokens can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

STEPS = 4
"""New tokens of each row."""

Forward = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""A function from inputs to outputs, both by name."""


def growing_input(model: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> str | None:
    """Returns the input that generated tokens are added to; None if the model does not generate."""
    logits = outputs.get("logits")
    can_generate = getattr(model, "can_generate", None)
    if logits is None or logits.dim() != 3 or can_generate is None or not can_generate():
        return None
    for name in ("decoder_input_ids", "input_ids"):
        ids = inputs.get(name)
        if ids is not None and ids.dim() == 2 and logits.shape[:2] == ids.shape:
            return name
    return None


def greedy(forward: Forward, inputs: Mapping[str, Any], growing: str) -> list[list[int]]:
    """Returns the most likely next tokens, `STEPS` of them, for each row."""
    import torch

    now = dict(inputs)
    start = now[growing].shape[1]
    for _ in range(STEPS):
        following = forward(now)["logits"][:, -1].argmax(-1, keepdim=True)
        length = now[growing].shape[1]
        for name, value in inputs.items():
            if not isinstance(value, torch.Tensor) or name == growing:
                continue
            if _goes_along(name, growing) and now[name].dim() >= 2 and now[name].shape[-1] == length:
                last = now[name][..., -1:] + (1 if name == "position_ids" else 0)
                now[name] = torch.cat([now[name], last], dim=-1)
        now[growing] = torch.cat([now[growing], following.to(now[growing].dtype)], dim=1)
    tokens: list[list[int]] = now[growing][:, start:].tolist()
    return tokens


def _goes_along(name: str, growing: str) -> bool:
    """Returns True if an input has one value for each token of the growing one."""
    if growing == "decoder_input_ids":
        return name == "decoder_attention_mask"
    return name in ("attention_mask", "token_type_ids", "mm_token_type_ids", "position_ids")
