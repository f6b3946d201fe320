"""Models that read images or audio together with text."""

from __future__ import annotations

from typing import Any

from engine.matrix.build.overrides.override import Override
from engine.matrix.build.shapes import after, each, floats, ints, ones, trues

_TEXT_ONLY = "its default configuration has no part for images and audio; those have rows of their own"
_CODES = 64
_FIRST_CODE = 300


def _letters(number: int) -> str:
    return "".join(chr(ord("A") + int(digit)) for digit in str(number))


_CHAMELEON_WORDS: dict[str, Any] = {
    "<image>": 4,
    **{f"IMGIMG{_letters(code)}Z": _FIRST_CODE + code for code in range(_CODES)},
}
_EMU_WORDS: dict[str, Any] = {
    "<image>": 4,
    "<|extra_200|>": 5,
    **{f"<|visual token {code:06d}|>": _FIRST_CODE + code for code in range(_CODES)},
}

MULTIMODAL: dict[str, Override] = {
    "aria": Override(
        "its projector has queries for numbers of patches that it knows",
        config={"projector_patch_to_query_dict": {16: 4, 900: 8}},
    ),
    "blip-2": Override("its default configuration has no token for images", config={"image_token_index": 400}),
    "blip_2_qformer": Override(
        "reads the states of an image encoder", inputs={"encoder_hidden_states": floats("B", 12, 64)}
    ),
    "chameleon": Override(
        "its vocabulary maps codes of images to tokens",
        config={"vocabulary_map": _CHAMELEON_WORDS, "vq_config.num_embeddings": _CODES},
    ),
    "emu3": Override(
        "its vocabulary maps codes of images to tokens",
        config={
            "vocabulary_map": _EMU_WORDS,
            "vq_config.codebook_size": _CODES,
            "vq_config.base_channels": 32,
            "vq_config.hidden_size": 128,
        },
        inputs={"pixel_values": floats("B", 3, 64, 64), "image_sizes": each([64, 64])},
    ),
    "deepseek_vl_hybrid": Override(
        "reads each image in two sizes",
        inputs={"pixel_values": floats("B", 3, 64, 64), "high_res_pixel_values": floats("B", 3, 64, 64)},
    ),
    "embedding_gemma2": Override(_TEXT_ONLY, inputs={"pixel_values": None, "input_features": None}),
    "gemma4": Override(_TEXT_ONLY, inputs={"pixel_values": None, "input_features": None}),
    "gemma4_unified": Override(_TEXT_ONLY, inputs={"pixel_values": None, "input_features": None}),
    "fuyu": Override(
        "reads images as flat patches", inputs={"image_patches": None, "pixel_values": floats("B", 4, 2700)}
    ),
    "idefics": Override(
        "says for each word which images it may look at",
        inputs={"pixel_values": floats("B", 1, 3, 56, 56), "image_attention_mask": ones("B", 12, 1)},
    ),
    "idefics2_perceiver": Override(
        "reads the states of an image encoder",
        inputs={"context": floats("B", 12, 64), "attention_mask": ones("B", 12)},
    ),
    "lxmert": Override(
        "reads regions that a detector found",
        inputs={"visual_feats": floats("B", 6, 2048), "visual_pos": floats("B", 6, 4)},
        config={"l_layers": 2, "x_layers": 2, "r_layers": 2},
    ),
    "qwen2_5_omni": Override("has no forward pass of its own; the part that thinks runs here", part="thinker"),
    "colqwen2": Override(
        "pads the patches of each image to one length",
        inputs={
            "input_ids": after(4, "image_token_id"),
            "pixel_values": floats("B", 16, 1176),
            "image_grid_thw": each([1, 4, 4]),
        },
    ),
    "dots3_note_vision_encoder": Override(
        "its adapter is as wide as its layers", config={"adapter_in_dim": 64, "adapter_out_dim": 64}
    ),
    **dict.fromkeys(
        ("evolla", "EvollaModel"),
        Override(
            "its protein encoder is a configuration without a type",
            config={
                "protein_encoder_config": {
                    "vocab_size": 33,
                    "hidden_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "intermediate_size": 64,
                    "pad_token_id": 1,
                    "mask_token_id": 32,
                    "max_position_embeddings": 64,
                },
                "resampler_depth": 2,
                "resampler_heads": 4,
                "resampler_dim_head": 16,
                "aligner_num_add_layers": 1,
            },
            inputs={"protein_input_ids": ints(24, "B", 12, low=4), "protein_attention_mask": ones("B", 12)},
        ),
    ),
    "glm_image": Override(
        "reads images only to change them; text alone runs here",
        inputs={"pixel_values": None, "image_grid_thw": None, "images_per_sample": None},
    ),
    "instructblip": Override("its default configuration has no token for images", config={"image_token_index": 400}),
    "instructblipvideo": Override(
        "its default configuration has no token for videos", config={"video_token_index": 400}
    ),
    "kosmos-2": Override(
        "names the tokens of the image",
        config={"latent_query_num": 8},
        inputs={
            "input_ids": ints(200, "B", 20, low=10),
            "attention_mask": ones("B", 20),
            "image_embeds_position_mask": each([True] * 8 + [False] * 12),
        },
    ),
    "llava_onevision": Override(
        "cuts each image into the tiles of a grid that must fit it",
        config={"image_grid_pinpoints": [[112, 112]]},
        inputs={"pixel_values": floats("B", 5, 3, 56, 56), "image_sizes": each([112, 112])},
    ),
    "mllama": Override(
        "reads tiles, at the layers that cross over",
        config={"text_config.cross_attention_layers": [1]},
        inputs={
            "pixel_values": floats("B", 1, 4, 3, 56, 56),
            "aspect_ratio_ids": ones("B", 1),
            "aspect_ratio_mask": ones("B", 1, 4),
            "cross_attention_mask": ones("B", 12, 1, 4),
        },
    ),
    "qwen2_5_omni_thinker": Override(
        "its configuration lacks a token", config={"vision_start_token_id": 450}, inputs={"input_features": None}
    ),
    "qwen3_omni_moe_talker_text": Override(
        "its configuration lacks a width; reads the states of the part that thinks",
        config={"shared_expert_intermediate_size": 64},
        inputs={"input_ids": None, "inputs_embeds": floats("B", 12, 64)},
    ),
    "dots3_note": Override(
        "its adapters are as wide as its text model; its images have a row of their own",
        config={"audio_config.adapter_out_dim": 64, "vision_config.adapter_out_dim": 64},
        inputs={"pixel_values": None, "input_features": None},
    ),
    "jev": Override(unavailable="decides between marked options of a prompt that only its own processor writes"),
    "muse_glimmer_assistant": Override(
        unavailable="drafts from the inner states of a muse_glimmer that runs next to it"
    ),
    "molmo2_adapter": Override(unavailable="pools inner states of molmo2: runs in that row"),
    "molmo2_vision": Override(
        "reads flat patches", config={"image_size": [56, 56]}, inputs={"pixel_values": floats("B", 16, 588)}
    ),
    "pi0": Override(
        "reads cameras and the state of a robot, and denoises its actions",
        inputs={
            "input_ids": ints(200, "B", 12, low=10),
            "attention_mask": ones("B", 12),
            "state": floats("B", 32),
            "noise": floats("B", 50, 32),
            "timestep": floats("B"),
            "pixel_values": floats("B", 1, 3, 56, 56),
            "pixel_attention_mask": trues("B", 1),
        },
    ),
    "qwen2_audio": Override(
        "puts each audio in the place of one token",
        inputs={"input_ids": after(1, "audio_token_index"), "attention_mask": ones("B", 13)},
    ),
    "qwen3_omni_moe": Override(
        "has no forward pass of its own; the part that thinks runs here",
        part="thinker",
        config={"talker_config.spatial_merge_size": 2},
    ),
    "qwen3_omni_moe_thinker": Override(
        "its configuration lacks a token", config={"vision_start_token_id": 450}, inputs={"input_features": None}
    ),
    "shieldgemma2": Override("needs two words by their numbers", config={"yes_token_index": 50, "no_token_index": 51}),
    "vipllava": Override(
        "reads five layers of its image encoder", config={"vision_feature_layer": [-1, -2, -1, -2, 1]}
    ),
    "diffusion_gemma": Override(
        "draws the canvas that it begins with, unless it is given",
        inputs={"decoder_input_ids": ints(200, "B", 256, low=10)},
    ),
    "inkling2": Override(
        "reads patches as small images",
        inputs={"pixel_values": floats("4B", 40, 40, 3), "image_grid_thw": each([1, 2, 2])},
    ),
    "kimi_k25": Override(
        "reads patches as small images",
        inputs={"pixel_values": floats("16B", 3, 14, 14), "image_grid_thw": each([1, 4, 4])},
    ),
    "neomme": Override("reads flat patches", inputs={"pixel_values": floats("16B", 3072)}),
    "molmo2": Override(
        "its images come with tables that only its own processor makes; text alone runs here",
        config={"adapter_config.vision_feature_layer": [1, 0]},
        inputs={"pixel_values": None},
    ),
    "nemotron_h_omni": Override(
        "its images come as tiles; text alone runs here", inputs={"pixel_values": None, "input_features": None}
    ),
    **{
        name: Override("its projector reads four merged patches", config={"out_hidden_size": 256})
        for name in ("muse_glimmer", "muse_spark")
    },
    **dict.fromkeys(
        ("aimv2", "aimv2_text_model"),
        Override(
            "torch skips its causal mask where no word is padding, and a graph never does; so one word is",
            inputs={"attention_mask": each([1] * 11 + [0])},
        ),
    ),
    **dict.fromkeys(
        ("paligemma", "colpali"),
        Override("reads its question both ways and its answer one way", inputs={"token_type_ids": each([0] * 28)}),
    ),
}
