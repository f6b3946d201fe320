"""What is exported is compared with torch, beyond a window of attention, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.artifacts.cache import Cache, Held
from engine.artifacts.resolve import Artifact
from engine.runtimes.openvino import export, export_check
from tests.runtimes.openvino.test_export import EXACT, TORCH, answers
from tests.runtimes.tiny_models import causal

pytest.importorskip("openvino_genai")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

WINDOWED: dict[str, dict[str, Any]] = {
    "Mistral": {"num_key_value_heads": 2},
    "Gemma3Text": {
        "num_key_value_heads": 1,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "tie_word_embeddings": False,  # else it says the last token again, whatever it sees
        "layer_types": ["sliding_attention", "full_attention"],
    },
}
"""One with a window in each layer, one in each second layer."""


@pytest.fixture(scope="module", params=WINDOWED)
def windowed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cache]:
    """A model with a window of 16 tokens, and the cache where its export is."""
    folder, cache = tmp_path_factory.mktemp("model"), Cache(tmp_path_factory.mktemp("cache"))
    torch.manual_seed(0)
    causal(folder, request.param, sliding_window=16, **WINDOWED[request.param])
    return folder, cache


@pytest.fixture
def made(windowed: tuple[Path, Cache]) -> Held:
    folder, cache = windowed
    return export.exported(Artifact(folder, "safetensors", "test", cache=cache), "none")


def test_a_window_of_attention_is_kept(windowed: tuple[Path, Cache]) -> None:
    folder, cache = windowed
    assert answers(folder, EXACT, cache) == answers(folder, TORCH)


@pytest.mark.parametrize("window", [15, 17, 4096])
def test_a_graph_with_another_window_is_noticed(windowed: tuple[Path, Cache], made: Held, window: int) -> None:
    true = transformers.AutoModelForCausalLM.from_pretrained(windowed[0])
    prompt = export_check.prompt_of(true)
    assert prompt.shape[1] > 16
    assert export_check.away(true, made.path, prompt) < 1e-4
    other = transformers.AutoModelForCausalLM.from_pretrained(windowed[0], sliding_window=window)
    assert export_check.away(other, made.path, prompt) > 1e-2


def small(kind: str, **config: Any) -> Any:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    settings = getattr(transformers, f"{kind}Config")(vocab_size=98, **sizes, **config)
    return transformers.AutoModelForCausalLM.from_config(settings)


SCALED = {"factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 64}
POSITIONS = {"max_position_embeddings": 256, "original_max_position_embeddings": 64}
LONG = {**SCALED, "rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}


@pytest.mark.parametrize(
    ("kind", "config", "tokens"),
    [
        ("Llama", {}, 12),
        ("Mistral", {"sliding_window": 1024}, 1036),
        ("Mistral", {"sliding_window": 64, "max_position_embeddings": 64}, 12),  # longer than the context
        ("Llama", {"rope_parameters": {**SCALED, "rope_type": "yarn"}, "max_position_embeddings": 256}, 76),
        ("Llama", {"rope_parameters": {**SCALED, "rope_type": "dynamic"}, "max_position_embeddings": 64}, 76),
        ("Phi3", {"rope_parameters": LONG, **POSITIONS, "pad_token_id": 0}, 76),
    ],
)
def test_the_prompt_is_longer_than_what_changes_the_answer(kind: str, config: dict[str, Any], tokens: int) -> None:
    assert export_check.prompt_of(small(kind, **config)).shape == (1, tokens)


def test_a_window_that_is_too_long_to_be_checked_is_said(caplog: pytest.LogCaptureFixture) -> None:
    model = small("Mistral", sliding_window=4096)
    assert export_check.prompt_of(model).shape == (1, 12)
    assert "MistralForCausalLM: what changes after 4096 tokens" in caplog.text
    assert "is not compared with torch" in caplog.text
