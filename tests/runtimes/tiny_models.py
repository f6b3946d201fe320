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

    bert_tokenizer(folder, kinds=True)
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


def t5(folder: Path, **summaries: Any) -> None:
    """`summaries` is what its config says of them, such as a prefix, as T5's own checkpoints have it."""
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
        task_specific_params={"summarization": summaries},
    )
    transformers.T5ForConditionalGeneration(settings).save_pretrained(folder)


def causal(folder: Path, kind: str, **config: Any) -> None:
    """The decoder of the class `kind`Config, with weights so large that prompts matter."""
    import tokenizers
    import transformers

    words = ["<pad>", "<s>", "</s>", "\u0120", *map(chr, range(33, 127))]  # \u0120 is its way to write a space
    vocabulary = {word: index for index, word in enumerate(words)}
    bytes_only = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    bytes_only.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.5}
    settings = getattr(transformers, f"{kind}Config")(vocab_size=len(vocabulary), **SIZES, **special, **config)
    transformers.AutoModelForCausalLM.from_config(settings).save_pretrained(folder)


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


def bert_tokenizer(folder: Path, *, kinds: bool = False) -> None:
    """`kinds`: with the token_type_ids that only BERT's like read."""
    import transformers

    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    names = ["input_ids", *(["token_type_ids"] if kinds else []), "attention_mask"]
    transformers.BertTokenizerFast(
        str(folder / "vocab.txt"), model_max_length=64, model_input_names=names
    ).save_pretrained(folder)


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

    bert_tokenizer(folder, kinds=True)
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
    pictures = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    transformers.LlavaProcessor(
        pictures, tokenizer, patch_size=8, vision_feature_select_strategy="default", chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip


def whisper(folder: Path, *languages: str) -> None:
    """English only where no languages are given; a window is a second."""
    import transformers

    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {"layers": 2, "attention_heads": 2, "ffn_dim": 64}.items()
    }
    letters = {letter: index for index, letter in enumerate([*LETTERS, "\u0120"])}
    tongues = [f"<|{code}|>" for code in languages]
    tasks = ["<|translate|>", "<|transcribe|>"] if languages else []
    added = ["<|endoftext|>", "<|startoftranscript|>", *tongues, *tasks, "<|startofprev|>", "<|notimestamps|>"]
    tokenizer = transformers.WhisperTokenizerFast(vocab=letters, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": added, "pad_token": added[0]})
    tokenizer.save_pretrained(folder)
    end, start, *spoken, before, timeless = tokenizer.convert_tokens_to_ids(added)
    known = dict(zip((*tongues, "translate", "transcribe"), spoken, strict=False))
    special = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    settings = transformers.WhisperConfig(
        vocab_size=timeless + 1 + 51, num_mel_bins=16, d_model=32, max_source_positions=50, max_target_positions=32,
        suppress_tokens=[], begin_suppress_tokens=[], **sides, **special
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(settings)
    model.generation_config.update(
        is_multilingual=False, max_length=12, no_timestamps_token_id=timeless, prev_sot_token_id=before,
        alignment_heads=[[0, 0], [1, 1]], return_timestamps=False, max_initial_timestamp_index=25,
        suppress_tokens=[26, end, start, *spoken, before, *range(timeless + 1, settings.vocab_size)],
    )  # fmt: skip
    if languages:
        # `update` leaves out what a config does not have from the start, and what was made of the model's is made anew.
        model.generation_config._from_model_config = False
        model.generation_config.is_multilingual = True
        model.generation_config.no_timestamps_token_id = timeless
        model.generation_config.prev_sot_token_id = before
        model.generation_config.lang_to_id = {name: known[name] for name in tongues}
        model.generation_config.task_to_id = {name: known[name] for name in ("translate", "transcribe")}
    model.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=1).save_pretrained(folder)


def ctc(folder: Path) -> None:
    """A wav2vec 2.0 that hears letters."""
    import json

    import transformers

    letters = {name: index for index, name in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS])}
    (folder / "vocab.json").write_text(json.dumps(letters), encoding="utf-8")
    transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    convolutions = {"conv_dim": (16, 16), "conv_kernel": (10, 8), "conv_stride": (20, 16), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "pad_token_id": 0}
    settings = transformers.Wav2Vec2Config(vocab_size=len(letters), **convolutions, **positions, **SIZES)
    transformers.Wav2Vec2ForCTC(settings).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)


def vits(folder: Path) -> None:
    """Two voices; without noise, so that the same text is the same sound."""
    import json

    import transformers

    letters = {name: index for index, name in enumerate(["<pad>", *LETTERS, " ", "<unk>"])}
    (folder / "vocab.json").write_text(json.dumps(letters), encoding="utf-8")
    transformers.VitsTokenizer(str(folder / "vocab.json"), phonemize=False, language="eng").save_pretrained(folder)
    settings = transformers.VitsConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, flow_size=16,
        spectrogram_bins=9, prior_encoder_num_flows=1, prior_encoder_num_wavenet_layers=1,
        duration_predictor_num_flows=1,
        posterior_encoder_num_wavenet_layers=1, upsample_initial_channel=16, upsample_rates=[4, 4],
        upsample_kernel_sizes=[8, 8], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]], num_speakers=2,
        speaker_embedding_size=8, wavenet_kernel_size=3, depth_separable_channels=2, depth_separable_num_layers=1,
        sampling_rate=8000, noise_scale=0.0, noise_scale_duration=0.0,
    )  # fmt: skip
    transformers.VitsModel(settings).save_pretrained(folder)


def speecht5(folder: Path) -> None:
    """With a vocoder, and two voices."""
    import numpy as np
    import transformers

    bert_tokenizer(folder)
    settings = transformers.SpeechT5Config(
        vocab_size=len(WORDS), hidden_size=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=8,
        speech_decoder_prenet_units=16,
        speech_decoder_postnet_units=16, speech_decoder_postnet_layers=1, speaker_embedding_dim=4, reduction_factor=2,
        max_text_positions=64, bos_token_id=2, eos_token_id=3, pad_token_id=0, decoder_start_token_id=2,
    )  # fmt: skip
    transformers.SpeechT5ForTextToSpeech(settings).save_pretrained(folder)
    vocoder = transformers.SpeechT5HifiGanConfig(
        model_in_dim=8, upsample_initial_channel=8, upsample_rates=[4, 4], upsample_kernel_sizes=[8, 8],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]], sampling_rate=8000,
    )  # fmt: skip
    transformers.SpeechT5HifiGan(vocoder).save_pretrained(folder / "vocoder")
    (folder / "voices").mkdir(exist_ok=True)
    for index, name in enumerate(("anna", "bert")):
        np.save(folder / "voices" / f"{name}.npy", np.full(4, index, np.float32))


def musicgen(folder: Path) -> None:
    import transformers

    bert_tokenizer(folder)
    text = transformers.T5Config(
        vocab_size=len(WORDS), d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, pad_token_id=0, eos_token_id=3
    )
    sound = transformers.EncodecConfig(
        num_filters=4, hidden_size=16, codebook_size=32, codebook_dim=16, upsampling_ratios=[4, 4], num_lstm_layers=1,
        sampling_rate=8000, target_bandwidths=[40.0], num_residual_layers=1, kernel_size=3, last_kernel_size=3,
    )  # fmt: skip
    codes = transformers.MusicgenDecoderConfig(
        vocab_size=32, num_codebooks=2, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, ffn_dim=32,
        max_position_embeddings=64, pad_token_id=32, bos_token_id=32,
    )  # fmt: skip
    settings = transformers.MusicgenConfig(
        text_encoder=text.to_dict(), audio_encoder=sound.to_dict(), decoder=codes.to_dict()
    )
    model = transformers.MusicgenForConditionalGeneration(settings)
    model.generation_config.update(
        decoder_start_token_id=32, pad_token_id=32, bos_token_id=32, guidance_scale=1.0, max_length=12, do_sample=False
    )
    model.save_pretrained(folder)
    transformers.EncodecFeatureExtractor(sampling_rate=8000).save_pretrained(folder)


def videomae(folder: Path) -> None:
    import transformers

    settings = transformers.VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=4, tubelet_size=2, num_labels=4, **SIZES
    )
    transformers.VideoMAEForVideoClassification(settings).save_pretrained(folder)
    transformers.VideoMAEImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)


def patchtst(folder: Path) -> None:
    """Reads 16 numbers of each of two channels, and says 4."""
    import transformers

    settings = transformers.PatchTSTConfig(
        num_input_channels=2, context_length=16, prediction_length=4, patch_length=4, patch_stride=4, d_model=16,
        num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, loss="mse",
    )  # fmt: skip
    transformers.PatchTSTForPrediction(settings).save_pretrained(folder)


def informer(folder: Path) -> None:
    """Reads 10 numbers of one series, and draws 3 from a distribution."""
    import transformers

    settings = transformers.InformerConfig(
        prediction_length=3, context_length=8, lags_sequence=[1, 2], num_time_features=1, d_model=16, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
    )  # fmt: skip
    transformers.InformerForPrediction(settings).save_pretrained(folder)


def stable_diffusion(folder: Path) -> None:
    """Pictures of 16 pixels; prompts have up to 22 letters."""
    import transformers
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=24
    )
    end = len(words) - 1
    text = transformers.CLIPTextConfig(
        vocab_size=len(words), max_position_embeddings=24, bos_token_id=end - 1, eos_token_id=end, pad_token_id=end,
        **SIZES,
    )  # fmt: skip
    network = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32, attention_head_dim=8,
    )  # fmt: skip
    pixels = AutoencoderKL(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
    )  # fmt: skip
    noise = PNDMScheduler(skip_prk_steps=True, steps_offset=1, beta_schedule="scaled_linear")
    StableDiffusionPipeline(
        pixels, transformers.CLIPTextModel(text), tokenizer, network, noise, None, None, requires_safety_checker=False
    ).save_pretrained(folder)


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
    "summarization": lambda folder: t5(folder, prefix="s : ", max_length=12),
    "summarization, no prefix": t5,
    "translation": marian,
    "image-to-text": lambda folder: blip(folder, "ConditionalGeneration"),
    "image-to-text, encoder and decoder": picture_reader,
    "visual-question-answering": lambda folder: blip(folder, "QuestionAnswering"),
    "visual-question-answering, from a list": vilt,
    "chat": llava,
    "transcription": whisper,
    "transcription, many languages": lambda folder: whisper(folder, "en", "de", "fr"),
    "transcription, letters": ctc,
    "speech": vits,
    "speech, by a spectrogram": speecht5,
    "text-to-audio": musicgen,
    "text-to-image": stable_diffusion,
    "video-classification": videomae,
    "time-series-forecasting": patchtst,
    "time-series-forecasting, drawn": informer,
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
