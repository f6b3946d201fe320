"""Operations that OpenVINO's converter lacks come out right, also for inputs that the trace has not seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.runtimes.openvino.core import core

torch = pytest.importorskip("torch")
openvino = pytest.importorskip("openvino")

from engine.runtimes.openvino.patches import rewritten  # noqa: E402 - only where torch is

pytestmark = pytest.mark.slow


def floats(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def correlated(first: Any, second: Any) -> Any:
    """As Autoformer finds the period of a series."""
    product = torch.fft.rfft(first, n=10, dim=1) * torch.conj(torch.fft.rfft(second, n=10, dim=1))
    return torch.fft.irfft(product, n=10, dim=1)


def spread(counts: Any) -> Any:
    """As FastSpeech makes each letter as long as it is spoken."""
    repeats = counts.to(torch.int64)
    letters = torch.arange(5.0)[:, None] + torch.zeros(5, 2)
    return torch.cat([torch.repeat_interleave(letters, repeats, dim=0), repeats.repeat_interleave(2)[:, None] * 1.0
                      + torch.zeros(1, 2)])  # fmt: skip


def gridded(x: Any) -> Any:
    rows, columns = torch.meshgrid(x[:, 0], x[0], indexing="ij")
    across, down = torch.meshgrid(x[:, 0], x[0], indexing="xy")
    return torch.cat([rows * columns, (across * down).T])


def placed(x: Any) -> Any:
    """Values that are equal to a boundary, as of the patches of a picture."""
    boundaries = torch.arange(1 / 4, 1.0, 1 / 4)
    return torch.cat([torch.bucketize(x, boundaries, right=right) for right in (True, False)])


SOLVED = torch.eye(6) * 2 + floats(6, 6, seed=3) / 4
CASES: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "bucketize": (placed, torch.tensor([[0.0, 0.25, 0.5]]), torch.tensor([[0.75, 0.3, 0.25]])),
    "conj and rfft": (lambda x: correlated(x, x * 2 + 1), floats(2, 8, 3), floats(2, 8, 3, seed=1)),
    "diff": (lambda x: torch.diff(x, prepend=x[:, :1] - 1, dim=-1), floats(2, 8), floats(2, 8, seed=1)),
    "full": (
        lambda x: torch.full((2, 1), True) & torch.full_like(x, True).bool() & (x > 0),
        floats(2, 8),
        floats(2, 8, seed=1),
    ),
    "histc": (lambda x: torch.histc(x, 4, min=0, max=3), torch.tensor([0.0, 3, 3, 1]), torch.tensor([2.0, 2, 9, -1])),
    "meshgrid": (gridded, floats(3, 4), floats(3, 4, seed=1)),
    "nan_to_num": (
        lambda x: torch.nan_to_num(x.log(), neginf=-5.0), torch.tensor([[-1.0, 0, 2]]), torch.tensor([[0.0, 3, -2]]),
    ),
    "pad_sequence": (
        lambda x: torch.nn.utils.rnn.pad_sequence([row[row > 1] for row in x], batch_first=True, padding_value=-1),
        torch.tensor([[1.0, 2, 3], [1.0, 1, 5]]), torch.tensor([[1.0, 1, 2], [4.0, 5, 6]]),
    ),
    "repeat_interleave": (spread, torch.tensor([1.0, 0, 3, 1, 2]), torch.tensor([2.0, 2, 0, 1, 4])),
    "scatter": (
        lambda x: torch.ones_like(x, dtype=torch.bool).scatter(-1, x.argmax(-1, keepdim=True), False),
        floats(2, 8), floats(2, 8, seed=1),
    ),
    "solve_triangular": (
        lambda x: torch.linalg.solve_triangular(SOLVED, x, upper=False), floats(6, 2), floats(6, 2, seed=1),
    ),
    "squeeze": (lambda x: x[None, :, None].squeeze()[1:], floats(5), floats(5, seed=1)),
    "unfold": (lambda x: x.unfold(1, 4, 2), floats(2, 9, 3), floats(2, 9, 3, seed=1)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_graph_gives_what_torch_gives(name: str) -> None:
    compute, example, other = CASES[name]

    class Model(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return compute(x)

    model = Model().eval()
    with rewritten(model):
        graph = openvino.convert_model(model, example_input=(example,))
    compiled = core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for given in (example, other):
        wanted, found = compute(given), torch.from_numpy(compiled(given.numpy())[0])
        assert wanted.shape == found.shape
        assert torch.allclose(wanted.float(), found.float(), atol=1e-5)


def test_experts_are_chosen_anew_for_each_input() -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=4, use_cache=False,
    )  # fmt: skip
    model = MixtralForCausalLM(config).eval()

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any) -> Any:
            return self.model(input_ids=ids).logits

    example, other = torch.arange(8)[None], torch.arange(40, 48)[None]
    with torch.no_grad(), rewritten(model):
        graph = openvino.convert_model(Logits().eval(), example_input=(example,))
    compiled = core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    with torch.no_grad():
        wanted = model(input_ids=other).logits
    assert torch.allclose(wanted, torch.from_numpy(compiled(other.numpy())[0]), atol=1e-4)


def test_torch_is_as_before_afterwards() -> None:
    before = torch.diff, torch.Tensor.unfold, torch.linalg.solve_triangular
    with rewritten(torch.nn.Linear(1, 1)):
        assert torch.diff is not before[0]
    assert (torch.diff, torch.Tensor.unfold, torch.linalg.solve_triangular) == before
