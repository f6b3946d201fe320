"""Generation over OpenVINO's parts: the cache that a graph keeps, its tensors for who asks, weights of fewer bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("openvino")
transformers = pytest.importorskip("transformers")

from engine.core.errors import Internal  # noqa: E402
from engine.runtimes.openvino.parts import OpenVinoParts  # noqa: E402
from engine.runtimes.openvino.state import KeptLayer  # noqa: E402
from engine.runtimes.openvino.target import Target  # noqa: E402

pytestmark = pytest.mark.slow
ALWAYS = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
PROMPT = torch.tensor([[5, 9, 2, 7, 1, 3]])


@torch.inference_mode(False)
def model() -> Any:
    """Four queries for two keys, as in the models that people use."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=200,
    )  # fmt: skip
    return transformers.Qwen2ForCausalLM(config).eval()


@pytest.fixture(scope="module")
def converted() -> Any:
    made = model()
    return made, OpenVinoParts(made, Target("CPU", "f32"))


@torch.inference_mode()
@pytest.mark.parametrize("asked", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}])
def test_tokens_are_those_of_torch(converted: Any, asked: dict[str, Any]) -> None:
    wanted = model().generate(PROMPT, **ALWAYS, **asked)
    made, parts = converted
    for _ in range(2):  # the second generation finds the graphs made
        assert made.generate(PROMPT, **ALWAYS, **asked).equal(wanted)
    assert not parts.problems


@torch.inference_mode()
def test_a_cache_that_is_read_between_steps_has_its_tensors_and_goes_on(converted: Any) -> None:
    made, _ = converted
    made.generate(PROMPT, **ALWAYS)  # makes the graphs
    torchs, ours = (steps(each) for each in (model(), made))
    for number, (wanted, found) in enumerate(zip(torchs, ours, strict=True)):
        assert (type(found.layers[0]) is KeptLayer) == (number > 0)
        assert found.get_seq_length() == wanted.get_seq_length()
        if number == 2:
            for one, other in zip(wanted.layers, found.layers, strict=True):
                torch.testing.assert_close(other.keys, one.keys, rtol=1e-3, atol=1e-4)
                torch.testing.assert_close(other.values, one.values, rtol=1e-3, atol=1e-4)


def steps(made: Any) -> Iterator[Any]:
    """The cache after each of several steps, each taken as the generator goes on."""
    found = made(PROMPT, use_cache=True)
    yield found.past_key_values
    for number in range(4):
        length = PROMPT.shape[1] + number
        found = made(
            torch.tensor([[7 + number]]), attention_mask=torch.ones(1, length + 1, dtype=torch.long),
            position_ids=torch.tensor([[length]]), past_key_values=found.past_key_values, use_cache=True,
        )  # fmt: skip
        yield found.past_key_values


@torch.inference_mode()
def test_an_unfinished_generation_keeps_its_cache_when_another_begins(converted: Any) -> None:
    made, _ = converted
    made.generate(PROMPT, **ALWAYS)
    ours, wanted = steps(made), list(steps(model()))[-1].layers[1].keys
    for _ in range(3):
        next(ours)
    made.generate(PROMPT, **ALWAYS)
    found = list(ours)[-1].layers[1].keys
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_generator_with_smaller_weights_says_how_far_it_is(kind: str) -> None:
    pytest.importorskip("nncf")
    made = model()
    parts = OpenVinoParts(made, Target("CPU", "f32", quantization=kind))
    assert made.generate(PROMPT, **ALWAYS).shape == (1, 14)
    assert not parts.problems
    assert len(parts.drifts) == 2
    assert all(0.95 < drift < 1 for drift in parts.drifts)


def test_answers_that_change_too_much_are_refused() -> None:
    wanted, other = [torch.tensor([1.0, 0.0, 0.0])], [torch.tensor([0.8, 0.6, 0.0])]
    with pytest.raises(Internal, match=r"int8 changes the answers of Some: .* 0\.8000, below .*quantization=none"):
        Target("CPU", "f32", quantization="int8").check_drift("Some", wanted, other)
    with pytest.raises(Internal, match=r"Next: hardware\.quantization=int8"):
        Target("CPU", "f32", quantization="int4").check_drift("Some", wanted, other)
    assert Target("CPU", "f32", quantization="int4").check_drift("Some", wanted, wanted) == 1
