"""The tensors that a model returns, by name, and the distance between two sets of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

TOLERANCE = 1e-3
"""The largest relative error that still counts as the same output, in float32."""

_STATE = ("past_key_values", "cache_params", "mems", "state", "past_buckets_states", "encoder_past_key_values", "loss")
"""Values that a model returns for its own next step: not an answer, and other hardware keeps them inside."""


def leaves(output: Any, prefix: str = "") -> dict[str, Any]:
    """Returns every tensor of a model's output, by its dotted name."""
    return dict(_leaves(output, prefix))


def _leaves(output: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    import torch

    if isinstance(output, torch.Tensor):
        if output.numel():
            yield prefix or "output", output
    elif isinstance(output, Mapping):
        for name, value in output.items():
            if name not in _STATE:
                yield from _leaves(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(output, (list, tuple)):
        for number, value in enumerate(output):
            yield from _leaves(value, f"{prefix}.{number}" if prefix else str(number))


def relative_error(reference: Mapping[str, Any], found: Mapping[str, Any]) -> float:
    """Returns the largest difference of any output, relative to the largest value of that output.

    Whole numbers and truth values count as 0 where all are equal and as 1 where not. Raises ValueError when an output
    is missing or has another shape.
    """
    import torch

    worst = 0.0
    for name, wanted in reference.items():
        if name not in found:
            raise ValueError(f"the output {name} is missing")
        value = found[name]
        if tuple(value.shape) != tuple(wanted.shape):
            raise ValueError(f"the output {name} has the shape {list(value.shape)}, expected {list(wanted.shape)}")
        if not (wanted.is_floating_point() or wanted.is_complex()):
            worst = max(worst, 0.0 if bool((value.to(wanted.dtype) == wanted).all()) else 1.0)
            continue
        first, second = _comparable(wanted), _comparable(value)
        same = (first == second) | (torch.isnan(first) & torch.isnan(second))
        finite = torch.isfinite(first)
        if bool((finite != torch.isfinite(second)).any()):
            return float("inf")
        scale = float(first[finite].abs().max()) if bool(finite.any()) else 0.0
        difference = torch.where(same, torch.zeros_like(first), (first - second).abs())
        worst = max(worst, float(difference[finite].max()) / max(scale, 1e-12) if bool(finite.any()) else 0.0)
    return worst


def _comparable(value: Any) -> Any:
    import torch

    value = value.detach()
    if value.is_complex():
        value = torch.view_as_real(value)
    return value.to(device="cpu", dtype=torch.float64)


def finite(outputs: Mapping[str, Any]) -> bool:
    """Returns True if no output holds a NaN; infinities are legal scores."""
    import torch

    return not any(bool(torch.isnan(value).any()) for value in outputs.values() if value.is_floating_point())
