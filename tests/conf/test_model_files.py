"""Each model file of conf/model is a model that a user can choose and plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.compose import compose
from engine.schemas.model import ModelSpec

CONF = Path(__file__).resolve().parents[2] / "conf" / "model"
WITHOUT_FILES = {"default", "remote", "simulated"}
FILES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem not in WITHOUT_FILES)
_MAPPED = """
dbmdz/bert-base-german-cased distilbert/distilbert-base-uncased distilbert/distilroberta-base EleutherAI/gpt-neo-125M
EleutherAI/gpt-j-6B facebook/bart-base google/mt5-small facebook/mbart-large-50 google/electra-small-discriminator
allenai/longformer-base-4096 microsoft/deberta-v3-base microsoft/DialoGPT-small
facebook/dpr-question_encoder-single-nq-base google/mobilebert-uncased sentence-transformers/all-mpnet-base-v2
camembert/camembert-base flaubert/flaubert_small_cased Salesforce/codegen-350M-mono
sentence-transformers/paraphrase-xlm-r-multilingual-v1 albert/albert-base-v2 facebook/opt-125m
facebook/wav2vec2-base-960h openai/clip-vit-base-patch32 google/flan-t5-small facebook/blenderbot-400M-distill
facebook/blenderbot-90M google/pegasus-xsum allenai/led-base-16384 bigscience/bloom-560m google/vit-base-patch16-224
facebook/deit-base-distilled-patch16-224 facebook/detr-resnet-50 microsoft/swin-tiny-patch4-window7-224
facebook/convnext-base-224 facebook/hubert-base-ls960 squeezebert/squeezebert-uncased microsoft/layoutlm-base-uncased
microsoft/deberta-base openai/whisper-small laion/larger_clap_general Qwen/Qwen2-7B
llava-hf/llava-interleave-qwen-0.5b-hf llava-hf/llava-v1.6-mistral-7b-hf TinyLlama/TinyLlama-1.1B-Chat-v1.0
microsoft/xclip-base-patch16-zero-shot MCG-NJU/videomae-base Qwen/Qwen2-VL-7B-Instruct
"""
MAPPED = _MAPPED.split()


@pytest.fixture(scope="module")
def models() -> dict[str, ModelSpec]:
    """What each file composes to for a model in this process."""
    return {name: compose(["provider=local", f"model={name}", "hardware=cpu"]).spec.model for name in FILES}


@pytest.mark.slow
def test_each_mapped_checkpoint_has_a_file_of_its_own(models: dict[str, ModelSpec]) -> None:
    written = {source.repo for model in models.values() for source in model.sources if source.kind == "hub"}
    assert len(MAPPED) == 47
    assert not set(MAPPED) - written


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_model_file_says_what_it_is_and_where_its_files_are(name: str, models: dict[str, ModelSpec]) -> None:
    model = models[name]
    assert model.name == name
    assert model.tasks
    assert model.sources
    assert "hub" in model.ids or all(source.kind != "hub" for source in model.sources)
