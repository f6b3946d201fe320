"""Models of a few thousand fixed random weights with everything a checkpoint has: for tests of shapes, batches and
parity, not of answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

LETTERS = [chr(97 + index) for index in range(26)]
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    "hello",
    "world",
]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def bert(folder: Path, head: str, **config: Any) -> None:
    """`head` is the class after `BertFor`."""
    import transformers

    bert_tokenizer(folder)
    settings = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **SIZES, **config)
    getattr(transformers, f"BertFor{head}")(settings).save_pretrained(folder)


def vit(folder: Path, **config: Any) -> None:
    import transformers

    settings = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=4, **SIZES, **config)
    transformers.ViTForImageClassification(settings).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)


def wav2vec2(folder: Path, **config: Any) -> None:
    import transformers

    convolutions = {"conv_dim": (16, 16), "conv_kernel": (10, 8), "conv_stride": (5, 4), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 16}
    settings = transformers.Wav2Vec2Config(num_labels=3, **convolutions, **positions, **SIZES, **config)
    transformers.Wav2Vec2ForSequenceClassification(settings).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)


def t5(folder: Path) -> None:
    """With letters for tokens, and a prefix for summaries as T5's own checkpoints have it."""
    import transformers

    bert_tokenizer(folder)
    settings = transformers.T5Config(
        vocab_size=len(WORDS),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=3,
        decoder_start_token_id=0,
        task_specific_params={"summarization": {"prefix": "s : ", "max_length": 12}},
    )
    transformers.T5ForConditionalGeneration(settings).save_pretrained(folder)


def marian(folder: Path) -> None:
    import transformers

    bert_tokenizer(folder)
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {"layers": 2, "attention_heads": 2, "ffn_dim": 64}.items()
    }
    special = {"pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0, "forced_eos_token_id": 3}
    settings = transformers.MarianConfig(
        vocab_size=len(WORDS), d_model=32, max_position_embeddings=64, max_length=12, **sides, **special
    )
    transformers.MarianMTModel(settings).save_pretrained(folder)


def bert_tokenizer(folder: Path) -> None:
    import transformers

    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)


MAKERS: dict[str, Callable[[Path], None]] = {
    "text-classification": lambda folder: bert(folder, "SequenceClassification", num_labels=3),
    "zero-shot-classification": lambda folder: bert(
        folder,
        "SequenceClassification",
        id2label={0: "entailment", 1: "neutral", 2: "contradiction"},
        label2id={"entailment": 0, "neutral": 1, "contradiction": 2},
    ),
    "token-classification": lambda folder: bert(folder, "TokenClassification", num_labels=3),
    "fill-mask": lambda folder: bert(folder, "MaskedLM"),
    "question-answering": lambda folder: bert(folder, "QuestionAnswering"),
    "rerank": lambda folder: bert(folder, "SequenceClassification", num_labels=1),
    "token-embedding": lambda folder: bert(folder, "MaskedLM"),
    "sparse-embedding": lambda folder: bert(folder, "MaskedLM"),
    "summarization": t5,
    "translation": marian,
    "image-classification": vit,
    "audio-classification": wav2vec2,
}
"""A model for each task, made in an empty folder."""


def make(task: str, folder: Path) -> Path:
    """The folder, with the model in it; the same weights every time."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(20)
    MAKERS[task](folder)
    return folder
