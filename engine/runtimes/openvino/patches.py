"""Operations of torch that OpenVINO's converter lacks, replaced by others during a conversion.

Each rewrite gives the same numbers. Sources: the definition of each operation in torch's documentation; for the
triangular solve, the sum of powers of a nilpotent matrix, here as a product of log2(n) factors.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

GEOMETRY = ("image_sizes", "image_grid_thw", "video_grid_thw", "grid_thw", "spatial_shapes", "target_sizes",
            "image_merge_sizes", "merge_sizes")  # fmt: skip
"""Inputs that say how images are cut up. Models loop over their values, so a traced graph is bound to them: one graph
for each geometry."""

Rewrite = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Original → replacement."""


@contextlib.contextmanager
def rewritten(model: torch.nn.Module) -> Iterator[None]:
    """Limits the forward pass of `model` to operations that the converter of traces supports, while it is entered."""
    places = [*_places(), *_geometry_of(model)]
    originals = [getattr(owner, name) for owner, name, _ in places]
    for (owner, name, rewrite), original in zip(places, originals, strict=True):
        setattr(owner, name, rewrite(original))
    try:
        yield
    finally:
        for (owner, name, _), original in zip(places, originals, strict=True):
            setattr(owner, name, original)


def _places() -> list[tuple[Any, str, Rewrite]]:
    from transformers.integrations.moe import ExpertsInterface

    return [
        (ExpertsInterface, "get_interface", _experts),
        (torch, "arange", _arange),
        (torch, "bucketize", _bucketize),
        (torch, "cat", _cat),
        (torch, "conj", _conj),
        (torch, "diff", _diff),
        (torch, "full", _full),
        (torch, "full_like", _full_like),
        (torch, "histc", _histc),
        (torch, "meshgrid", _meshgrid),
        (torch, "nan_to_num", _nan_to_num),
        (torch, "repeat_interleave", _repeat_interleave),
        (torch.Tensor, "new_full", _new_full),
        (torch.Tensor, "repeat_interleave", _repeat_interleave),
        (torch.Tensor, "scatter", _scatter),
        (torch.Tensor, "scatter_", _scatter),
        (torch.Tensor, "squeeze", _squeeze),
        (torch.Tensor, "unfold", _unfold),
        (torch._C._nn, "pad_sequence", _pad_sequence),
        (torch.fft, "rfft", _rfft),
        (torch.linalg, "solve_triangular", _solve_triangular),
    ]


def _geometry_of(model: torch.nn.Module) -> list[tuple[Any, str, Rewrite]]:
    """Returns transformers' functions of the geometry of images that the files of a model use."""
    from transformers import vision_utils

    files = {type(module).__module__ for module in model.modules()}
    return [
        (sys.modules[file], name, _outside)
        for file in sorted(files)
        for name in vars(vision_utils)
        if name.startswith("get_vision_") and hasattr(sys.modules[file], name)
    ]


def _outside(original: Callable[..., Any]) -> Callable[..., Any]:
    """Computes a value outside the trace: the result is a constant of the graph."""

    def constant(*args: Any, **kwargs: Any) -> Any:
        state = torch._C._get_tracing_state()
        torch._C._set_tracing_state(None)
        try:
            return original(*args, **kwargs)
        finally:
            torch._C._set_tracing_state(state)

    return constant


def _varies(tensor: torch.Tensor) -> bool:
    """Returns True if a tensor of a trace depends on the inputs, and not only on weights and constants."""
    if torch._C._get_tracing_state() is None:
        return True
    value = torch._C._get_value_trace(tensor)
    inputs = {each.debugName() for each in list(torch._C._get_tracing_state().graph().inputs())[1:]}
    waiting, seen = [value], set()
    while waiting:
        name = (one := waiting.pop()).debugName()
        if name in inputs:
            return True
        if name not in seen:
            seen.add(name)
            waiting += one.node().inputs()
    return False


def _experts(original: Callable[..., Any]) -> Callable[..., Any]:
    """Each token takes the weights of its experts: the other ways sort the tokens by expert, and a trace would keep
    the order of the example."""
    from transformers.integrations.moe import batched_mm_experts_forward

    return lambda self, implementation, default: batched_mm_experts_forward


def _arange(original: Callable[..., Any]) -> Callable[..., Any]:
    """A constant unless its bounds vary: OpenVINO rounds fractions otherwise, and its CPU plug-in knows no size that
    is computed from constants."""
    constant = _outside(original)

    def arange(*args: Any, **kwargs: Any) -> Any:
        bounds = [bound for bound in (*args, *kwargs.values()) if isinstance(bound, torch.Tensor)]
        return original(*args, **kwargs) if any(map(_varies, bounds)) else constant(*args, **kwargs)

    return arange


def _bucketize(original: Callable[..., Any]) -> Callable[..., Any]:
    """Counts the boundaries that a value reaches; OpenVINO's own operation puts an equal value on the wrong side."""

    def bucketize(input: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False) -> Any:
        values = input.unsqueeze(-1) if isinstance(input, torch.Tensor) else input
        passed = values >= boundaries if right else values > boundaries
        return passed.sum(-1).to(torch.int32 if out_int32 else torch.int64)

    return bucketize


def _cat(original: Callable[..., Any]) -> Callable[..., Any]:
    """Concatenates without empty tensors of one dimension, such as a new cache: torch skips them, too."""

    def cat(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        full = [tensor for tensor in tensors if tensor.dim() != 1 or int(tensor.shape[0])]
        return original(full or tensors, *args, **kwargs)

    return cat


def _conj(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda input: torch.complex(input.real, -input.imag) if input.is_complex() else input


def _diff(original: Callable[..., Any]) -> Callable[..., Any]:
    def diff(input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
        found = torch.cat([part for part in (prepend, input, append) if part is not None], dim=dim)
        for _ in range(n):
            size = found.shape[dim]
            later, earlier = found.narrow(dim, 1, size - 1), found.narrow(dim, 0, size - 1)
            found = later ^ earlier if found.dtype == torch.bool else later - earlier
        return found

    return diff


def _full(original: Callable[..., Any]) -> Callable[..., Any]:
    """Fills with a truth value, for which a trace has no operation."""

    def full(size: Any, fill_value: Any, **kwargs: Any) -> Any:
        if isinstance(fill_value, bool):
            return original(size, int(fill_value), **{"dtype": torch.bool, **kwargs})
        return original(size, fill_value, **kwargs)

    return full


def _full_like(original: Callable[..., Any]) -> Callable[..., Any]:
    """Fills as above."""

    def full_like(input: Any, fill_value: Any, **kwargs: Any) -> Any:
        return original(input, int(fill_value) if isinstance(fill_value, bool) else fill_value, **kwargs)

    return full_like


def _scatter(original: Callable[..., Any]) -> Callable[..., Any]:
    """Fills as above."""

    def scatter(self: Any, dim: int, index: Any, src: Any = None, **kwargs: Any) -> Any:
        value = kwargs.pop("value", src)
        if isinstance(value, bool):
            value = int(value)
        return original(self, dim, index, value, **kwargs)

    return scatter


def _histc(original: Callable[..., Any]) -> Callable[..., Any]:
    """Counts by comparing each value with each bin."""

    def histc(input: Any, bins: int = 100, min: float = 0, max: float = 0) -> Any:
        if min == max:  # the range is that of the values
            return original(input, bins, min, max)
        values = input.reshape(-1, 1)
        bin_of = ((values - min) * (bins / (max - min))).floor().clamp(max=bins - 1)
        inside = (values >= min) & (values <= max)
        return ((bin_of == torch.arange(bins, device=input.device)) & inside).sum(0).to(input.dtype)

    return histc


def _nan_to_num(original: Callable[..., Any]) -> Callable[..., Any]:
    def nan_to_num(input: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Any:
        if not input.is_floating_point():
            return input
        range_ = torch.finfo(input.dtype)
        least, most = (range_.min if neginf is None else neginf), (range_.max if posinf is None else posinf)
        found = torch.where(input != input, torch.full_like(input, nan or 0.0), input)
        found = torch.where(found == float("inf"), torch.full_like(input, most), found)
        return torch.where(found == float("-inf"), torch.full_like(input, least), found)

    return nan_to_num


def _new_full(original: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the value to zeros: OpenVINO can write into a part of these, not of `new_full`'s tensor."""
    return lambda self, size, fill_value, **kwargs: self.new_zeros(size, **kwargs) + fill_value


def _pad_sequence(original: Callable[..., Any]) -> Callable[..., Any]:
    """Pads sequences; `torch.nn.utils.rnn.pad_sequence` calls it."""

    def pad_sequence(
        sequences: Any, batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
    ) -> Any:
        lengths = [each.shape[0] for each in sequences]
        longest = functools.reduce(torch.maximum, map(torch.as_tensor, lengths))
        padded = []
        for each, length in zip(sequences, lengths, strict=True):
            missing = (0, longest - length) if padding_side == "right" else (longest - length, 0)
            padded.append(torch.nn.functional.pad(each, (0, 0) * (each.dim() - 1) + missing, value=padding_value))
        return torch.stack(padded, dim=0 if batch_first else 1)

    return pad_sequence


def _rows(repeats: torch.Tensor) -> Any:
    ends = repeats.cumsum(0)
    places = torch.arange(ends[-1], device=ends.device)
    return (places[:, None] >= ends[None, :]).sum(1)


def _rfft(original: Callable[..., Any]) -> Callable[..., Any]:
    """Pads the signal beforehand, which OpenVINO's CPU plug-in can't."""

    def rfft(input: Any, n: int | None = None, dim: int = -1, norm: str | None = None) -> Any:
        if n is not None:
            moved = input.movedim(dim, -1)
            input = torch.nn.functional.pad(moved, (0, n - moved.shape[-1])).movedim(-1, dim)
        return original(input, None, dim, norm)

    return rfft


def _meshgrid(original: Callable[..., Any]) -> Callable[..., Any]:
    def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Any, ...]:
        given: Sequence[Any] = tensors[0] if isinstance(tensors[0], (list, tuple)) else tensors
        given = [tensor.reshape(-1) for tensor in given]
        order = [1, 0, *range(2, len(given))] if indexing == "xy" and len(given) > 1 else list(range(len(given)))
        shape = [given[number].shape[0] for number in order]
        return tuple(
            tensor.reshape([-1 if axis == number else 1 for axis in order]).expand(shape)
            for number, tensor in enumerate(given)
        )

    return meshgrid


def _repeat_interleave(original: Callable[..., Any]) -> Callable[..., Any]:
    """Repeats each row by its own number: each place of the output counts how many rows end before it."""

    def repeat_interleave(input: Any, repeats: Any = None, dim: int | None = None, **kwargs: Any) -> Any:
        if repeats is None:
            input, repeats = torch.arange(input.shape[0], device=input.device), input
        if not isinstance(repeats, torch.Tensor) or repeats.numel() == 1:
            return original(input, repeats, dim, **kwargs)
        rows = (_rows if _varies(repeats) else _outside(_rows))(repeats)
        return input.reshape(-1)[rows] if dim is None else input.index_select(dim, rows)

    return repeat_interleave


def _squeeze(original: Callable[..., Any]) -> Callable[..., Any]:
    """Removes axes of length 1 by their numbers: without them OpenVINO does not know the rank."""

    def squeeze(self: Any, *dim: Any, **kwargs: Any) -> Any:
        if dim or kwargs:
            return original(self, *dim, **kwargs)
        for axis in reversed(range(self.dim())):
            if int(self.shape[axis]) == 1:
                self = original(self, axis)
        return self

    return squeeze


def _unfold(original: Callable[..., Any]) -> Callable[..., Any]:
    """Selects windows by index; OpenVINO's own operation does not take three dimensions."""

    def unfold(self: Any, dimension: int, size: int, step: int) -> Any:
        axis = dimension % self.dim()
        starts = torch.arange(0, self.shape[axis] - size + 1, step, device=self.device)
        places = starts[:, None] + torch.arange(size, device=self.device)
        windows = self.index_select(axis, places.reshape(-1))
        return windows.unflatten(axis, (-1, size)).movedim(axis + 1, -1)

    return unfold


def _solve_triangular(original: Callable[..., Any]) -> Callable[..., Any]:
    """Inverts by (1 + N)⁻¹ = (1 - N) (1 + N²) (1 + N⁴) … for a strictly triangular N, whose n-th power is 0."""

    def solve(a: Any, b: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
        one = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        diagonal = torch.ones_like(a[..., 0]) if unitriangular else (a * one).sum(-1)
        scaled = a / diagonal.unsqueeze(-1)
        power = -(scaled.triu(1) if upper else scaled.tril(-1))
        size, reached = int(a.shape[-1]), 1
        inverse = one + power
        while (reached := 2 * reached) < size:
            power = power @ power
            inverse = inverse + inverse @ power
        inverse = inverse / diagonal.unsqueeze(-2)
        return inverse @ b if left else b @ inverse

    return solve
