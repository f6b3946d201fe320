"""Models of speech and other audio."""

from __future__ import annotations

from engine.matrix.build.overrides.override import Override
from engine.matrix.build.shapes import after, each, floats, ints, ones, trues, value

_MONO = "reads one channel of audio"
_CHANNELS = "reads one token for each codebook"
_PACKED = "reads all audio one after the other, with their lengths"
_PACK = {"input_features": floats(128, "200B"), "feature_lens": each(200), "aftercnn_lens": each(100)}

AUDIO: dict[str, Override] = {
    "bark": Override("has no forward pass of its own; the first of its three models runs here", part="semantic"),
    "clap": Override(
        "its processor makes four crops unless told not to", inputs={"input_features": floats("B", 1, 1001, 64)}
    ),
    "clap_audio_model": Override(
        "its processor makes four crops unless told not to", inputs={"input_features": floats("B", 1, 1001, 64)}
    ),
    "clvp": Override(
        "its spectrograms have the frequencies first; one part reads what another one writes",
        config={"speech_config.vocab_size": 512},
        inputs={"input_features": floats("B", 80, 64)},
    ),
    "dac": Override(_MONO, inputs={"input_values": floats("B", 1, 4000)}),
    "dia": Override(_CHANNELS, inputs={"decoder_input_ids": ints(200, "B", 5, 9)}),
    "dia_decoder": Override(
        _CHANNELS,
        inputs={
            "input_ids": ints(200, "B", 5, 9),
            "attention_mask": None,
            "encoder_hidden_states": floats("B", 12, 64),
        },
    ),
    "gemma4_audio": Override("its frequencies are fixed", inputs={"input_features": floats("B", 64, 128)}),
    "granite_speech5_encoder": Override("stacks four frames", inputs={"input_features": floats("B", 64, 320)}),
    "granite_speech5_ctc": Override("stacks four frames", inputs={"input_features": floats("B", 64, 320)}),
    "granite_speech_encoder": Override("stacks two frames", inputs={"hidden_states": floats("B", 32, 160)}),
    "granite_speech_plus_encoder": Override("stacks two frames", inputs={"hidden_states": floats("B", 32, 160)}),
    "mimi": Override("its upsampling has a group for each channel", config={"upsample_groups": 32}),
    "musicgen": Override("reads a token for each of four codebooks", inputs={"decoder_input_ids": ints(200, "4B", 5)}),
    "musicgen_decoder": Override(
        "reads a token for each of four codebooks", inputs={"input_ids": ints(200, "4B", 12), "attention_mask": None}
    ),
    "musicgen_melody": Override(
        "reads a token for each of four codebooks, and twelve pitches",
        inputs={"decoder_input_ids": ints(200, "4B", 5), "input_features": floats("B", 16, 12)},
    ),
    "musicgen_melody_decoder": Override(
        "reads a token for each of four codebooks", inputs={"input_ids": ints(200, "4B", 12), "attention_mask": None}
    ),
    "wav2vec2-bert": Override("its default configuration has no vocabulary", config={"vocab_size": 32}),
    "wav2vec2-conformer": Override("its default configuration has no vocabulary", config={"vocab_size": 32}),
    "xcodec": Override(_MONO, inputs={"input_values": floats("B", 1, 4000)}),
    "speech-encoder-decoder": Override("reads waves or spectrograms, not both", inputs={"input_features": None}),
    "csm": Override(
        "reads a token for each codebook and one of text",
        inputs={"input_ids": ints(50, "B", 6, 32), "input_values": None, "attention_mask": ones("B", 6)},
    ),
    "kyutai_speech_to_text": Override(
        "reads a token for each codebook and one of text",
        inputs={"input_ids": ints(200, "B", 6, 33), "attention_mask": ones("B", 6)},
    ),
    "dots3_note_audio_encoder": Override(
        "its adapter is as wide as its layers; reads chunks with their lengths in samples",
        config={"adapter_input_size": 64},
        inputs={"input_features": floats("B", 128, 100), "chunk_sample_lengths": each(16000)},
    ),
    "fun_asr_nano_encoder": Override(
        "stacks seven frames", inputs={"input_features": floats("B", 32, 560), "input_features_mask": ones("B", 32)}
    ),
    "inkling_audio": Override("reads a token for each frequency", inputs={"audio_input_ids": ints(200, "B", 12, 80)}),
    "moonshine_streaming": Override("its configuration lacks a setting", config={"num_key_value_heads": 4}),
    "moshi_depth": Override(
        "reads one token for each codebook, after a state of the large decoder",
        inputs={"input_ids": ints(200, "B", 8), "attention_mask": None, "last_hidden_state": floats("B", 8, 4096)},
    ),
    "phi4_multimodal_audio": Override(
        "names its inputs otherwise", inputs={"hidden_states": floats("B", 64, 80), "mask": trues("B", 64)}
    ),
    "pop2piano": Override(
        "reads a spectrogram in place of tokens, as wide as its layers",
        inputs={"input_ids": None, "attention_mask": None, "input_features": floats("B", 64, 64)},
    ),
    "qwen3_asr_encoder": Override(
        "reads whole windows of 100 frames",
        inputs={"input_features": floats("B", 128, 200), "input_features_mask": ones("B", 200)},
    ),
    "fun_asr_nano": Override(
        "stacks seven frames; its adaptor is a quarter as wide as its text model",
        config={"adaptor_config.intermediate_size": 16},
        inputs={"input_features": floats("B", 32, 560), "input_features_mask": ones("B", 32)},
    ),
    "glmasr_encoder": Override(
        "its spectrograms have the frequencies first", inputs={"input_features": floats("B", 128, 64)}
    ),
    "voxtral_realtime_encoder": Override(
        "its spectrograms have the frequencies first", inputs={"input_features": floats("B", 128, 64)}
    ),
    "mimi_decoder": Override(
        "its upsampling has a group for each channel",
        config={"upsample_groups": 32},
        inputs={"latents": floats("B", 64, 10)},
    ),
    "pocket_tts_audio_tokenizer_decoder": Override(
        "its upsampling has a group for each channel",
        config={"upsample_groups": 32},
        inputs={"latents": floats("B", 64, 10)},
    ),
    "muse_spark_audio": Override(
        "has one stage for each layer; reads blocks of 1920 samples",
        config={"num_hidden_layers": 4, "depths": [1, 1, 1, 1]},
        inputs={"input_values": floats("B", 3840)},
    ),
    "qwen2_5_omni_audio_encoder": Override(_PACKED, inputs=_PACK),
    "qwen3_omni_moe_audio_encoder": Override(_PACKED, inputs=_PACK),
    "qwen2_5_omni_bigvgan": Override(
        "names its spectrogram otherwise", inputs={"mel_spectrogram": floats("B", 80, 32)}
    ),
    "qwen2_5_omni_dit": Override(unavailable="denoises step by step inside of qwen2_5_omni"),
    "qwen2_5_omni_talker": Override(unavailable="speaks from the inner states of qwen2_5_omni: runs next to it"),
    "qwen2_5_omni_token2wav": Override(unavailable="denoises step by step inside of qwen2_5_omni"),
    "qwen3_omni_moe_talker_code_predictor": Override(
        "predicts one code after the other", inputs={"generation_steps": value(0)}
    ),
    **{
        f"vibevoice_acoustic_tokenizer{part}": Override(
            "its filters double in each of seven stages", config={"num_filters": 4, "depths": [1] * 7}, inputs=made
        )
        for part, made in (
            ("", {"input_values": floats("B", 1, 6400), "sample": value(False)}),
            ("_encoder", {"hidden_states": floats("B", 1, 6400)}),
            ("_decoder", {"hidden_states": floats("B", 64, 4)}),
        )
    },
    "vibevoice_asr": Override(
        "adds noise to its audio; none here", config={"acoustic_tokenizer_encoder_config.vae_std": 0.0}
    ),
    "voxtral_realtime": Override(
        "adds eight frames of a spectrogram to each token", inputs={"input_features": floats("B", 128, 96)}
    ),
    "voxtral": Override("its default configuration has no token for audio", config={"audio_token_id": 400}),
    **{
        name: Override("masks the features of its audio, not their frames", inputs={"input_features_mask": None})
        for name in ("granite_speech", "granite_speech_plus")
    },
    "moss_transcribe_diarize": Override("masks samples too", inputs={"padding_mask": ones("B", 16000)}),
    "musicflamingo": Override(
        "orders its audio in time by their tokens",
        inputs={"input_ids": after(750, "audio_token_id"), "attention_mask": ones("B", 762)},
    ),
    **{
        name: Override(
            "reads a wave, with its mask, and its spectrogram side by side",
            config={"quantization_dim": 128},
            inputs={
                "input_values": floats("B", 1, 3840),
                "padding_mask": ones("B", 3840),
                "input_features": floats("B", 12, 160),
            },
        )
        for name in ("xcodec2", "neucodec")
    },
    "voxtral_realtime_text": Override("reads how far in time it looks back", inputs={"t_cond": floats(1, 1, 64)}),
}
