"""The distance of a graph's outputs from torch's."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree

TOLERANCE = {"f32": 1e-3, "bf16": 8e-2, "f16": 2e-2}
"""The largest allowed distance of an output from torch's in float32: largest difference ÷ largest number."""


def leaves(output: Any) -> list[torch.Tensor]:
    """Returns the tensors of an output of any form, in their order."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def distance(wanted: list[torch.Tensor], found: list[torch.Tensor]) -> float:
    """Returns the largest difference ÷ the largest number, of the worst output. Raises ValueError for other shapes."""
    worst = 0.0
    for first, second in zip(wanted, found, strict=True):
        if first.shape != second.shape:
            raise ValueError(f"an output has the shape {list(second.shape)} instead of {list(first.shape)}")
        if not first.numel():
            continue
        a, b = first.float(), second.float()
        worst = max(worst, float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)))
    return worst


def cosine(wanted: list[torch.Tensor], found: list[torch.Tensor]) -> float:
    """Returns the smallest cosine between two outputs of numbers, each taken as one vector."""
    least = 1.0
    for first, second in zip(wanted, found, strict=True):
        if first.is_floating_point() and first.numel() > 1:
            a, b = first.double().flatten(), second.double().flatten()
            least = min(least, float(torch.nn.functional.cosine_similarity(a, b, dim=0)))
    return least


def said(problem: BaseException) -> str:
    """Returns the last line of a converter's long message."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return (lines[-1] if lines else "no reason was given")[:240]
