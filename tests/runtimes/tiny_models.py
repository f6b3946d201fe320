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


def blip(folder: Path, head: str) -> None:
    import transformers

    bert_tokenizer(folder)
    text = {**SIZES, "vocab_size": len(WORDS), "encoder_hidden_size": 32, "max_position_embeddings": 64}
    special = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    vision = {**SIZES, "image_size": 32, "patch_size": 8}
    settings = transformers.BlipConfig(
        text_config={**text, **special}, vision_config=vision, projection_dim=16, image_text_hidden_size=16
    )
    getattr(transformers, f"BlipFor{head}")(settings).save_pretrained(folder)
    pictures = transformers.BlipImageProcessorPil(size={"height": 32, "width": 32})
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
    transformers.BlipProcessor(pictures, tokenizer).save_pretrained(folder)


def vilt(folder: Path) -> None:
    import transformers

    bert_tokenizer(folder)
    settings = transformers.ViltConfig(
        vocab_size=len(WORDS), image_size=32, patch_size=8, max_position_embeddings=64, num_labels=5, **SIZES
    )
    transformers.ViltForQuestionAnswering(settings).save_pretrained(folder)
    pictures = transformers.ViltImageProcessorPil(size={"shortest_edge": 32}, size_divisor=8)
    transformers.ViltProcessor(pictures, transformers.BertTokenizerFast.from_pretrained(folder)).save_pretrained(folder)


def picture_reader(folder: Path) -> None:
    """A ViT with a GPT-2 that reads what it saw."""
    import transformers

    bert_tokenizer(folder)
    vision = transformers.ViTConfig(image_size=32, patch_size=8, **SIZES)
    text = transformers.GPT2Config(
        vocab_size=len(WORDS), n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=2, eos_token_id=3
    )
    settings = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        vision, text, decoder_start_token_id=2, pad_token_id=0, eos_token_id=3
    )
    transformers.VisionEncoderDecoderModel(settings).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)


CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image> {% else %}{{ part.text }} {% endif %}{% endfor %}{% endfor %}"
)


def llava(folder: Path) -> None:
    """Every picture is 16 tokens."""
    import transformers

    words = [*WORDS, "<image>"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    tokenizer = transformers.BertTokenizerFast(
        str(folder / "vocab.txt"), model_max_length=256, additional_special_tokens=["<image>"]
    )
    vision = transformers.CLIPVisionConfig(image_size=32, patch_size=8, projection_dim=16, **SIZES)
    text = transformers.LlamaConfig(
        vocab_size=len(words), max_position_embeddings=256, bos_token_id=2, eos_token_id=3, pad_token_id=0, **SIZES
    )
    settings = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=len(WORDS), vision_feature_layer=-1
    )
    transformers.LlavaForConditionalGeneration(settings).save_pretrained(folder)
    pictures = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    transformers.LlavaProcessor(
        pictures, tokenizer, patch_size=8, vision_feature_select_strategy="default", chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip


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
    "image-to-text": lambda folder: blip(folder, "ConditionalGeneration"),
    "image-to-text, encoder and decoder": picture_reader,
    "visual-question-answering": lambda folder: blip(folder, "QuestionAnswering"),
    "visual-question-answering, from a list": vilt,
    "chat": llava,
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
