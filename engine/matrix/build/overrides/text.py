"""Models of text, and of other sequences of tokens."""

from __future__ import annotations

from engine.matrix.build.overrides.override import Override
from engine.matrix.build.shapes import floats, ints, ones

ROPE = {"rope_type": "default", "rope_theta": 10000.0}
MROPE = {**ROPE, "mrope_section": [4, 2, 2]}
"""Positions in time, height and width; the three add up to half of a head's width of 16."""
_SECTIONS = "the three sections of its rotary positions must fit the narrow heads"
_THETA = "its default configuration sets no rotary base"

_NARROW = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}

TEXT: dict[str, Override] = {
    "blt": Override(
        "its hash tables alone have 500,000 rows by default",
        config={
            "encoder_hash_byte_group_vocab": 500,
            **{f"{part}_config.hidden_size_global": 64 for part in ("encoder", "decoder")},
        },
    ),
    "blt_local_encoder": Override(unavailable="runs only inside of blt, which cuts its bytes into patches"),
    "blt_local_decoder": Override(unavailable="runs only inside of blt, which gives it the patches' states"),
    "cohere_compass_text": Override(
        "each kind of layer has its own rotary positions",
        config={"rope_parameters": {"full_attention": MROPE, "sliding_attention": MROPE}},
    ),
    "dbrx": Override(
        "its parts have settings that its own defaults leave out",
        config={
            "attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0},
            "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
        },
    ),
    "decision_transformer": Override(
        "reads states, actions and rewards, not words",
        inputs={
            "states": floats("B", 8, 17),
            "actions": floats("B", 8, 4),
            "rewards": floats("B", 8, 1),
            "returns_to_go": floats("B", 8, 1),
            "timesteps": ints(8, "B", 8),
            "attention_mask": ones("B", 8),
            "input_ids": None,
        },
    ),
    "deepseek_ocr2_text": Override(
        "its default configuration names no kinds of layers", config={"mlp_layer_types": ["dense", "sparse"]}
    ),
    "diffusion_gemma_text": Override(
        "its default configuration sets no experts",
        config={"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 64},
    ),
    "ernie4_5_vl_moe_text": Override(
        "its default configuration sets no width of the experts, and " + _SECTIONS,
        config={"moe_intermediate_size": [64, 64], "rope_parameters": {**ROPE, "mrope_section": [3, 3, 2]}},
    ),
    "esm": Override(
        "its default configuration has no vocabulary", config={"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32}
    ),
    "glm4v_text": Override(_SECTIONS, config={"rope_parameters": MROPE}),
    "glm4v_moe_text": Override(
        _SECTIONS, config={"rope_parameters": {**ROPE, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}}
    ),
    "glm_image_text": Override(_SECTIONS, config={"rope_parameters": MROPE}),
    "gpt_neo": Override(
        "the list of its layers must be as long as their number", config={"attention_types": [[["global", "local"], 1]]}
    ),
    "hunyuan_v1_dense": Override(_THETA, config={"rope_parameters": ROPE, "head_dim": 16}),
    "hunyuan_v1_moe": Override(_THETA, config={"rope_parameters": ROPE, "head_dim": 16}),
    "hunyuan_vl_text": Override(_THETA, config={"rope_parameters": MROPE, "head_dim": 16}),
    "lfm2_moe": Override(
        "its default configuration names no kinds of layers", config={"layer_types": ["conv", "full_attention"]}
    ),
    "mamba2": Override(
        "its heads must add up to the width of its inner states",
        config={"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 2, "chunk_size": 8},
    ),
    "ministral": Override(_THETA, config={"rope_parameters": ROPE, "head_dim": 16}),
    "nemotron": Override("its default configuration sets no heads for keys", config={"num_key_value_heads": 2}),
    "qwen2_5_omni_text": Override(_SECTIONS, config={"rope_parameters": MROPE}),
    "qwen2_5_vl_text": Override(_SECTIONS, config={"rope_parameters": MROPE}),
    "qwen2_vl_text": Override(_SECTIONS, config={"rope_parameters": MROPE}),
    "rag": Override(
        "an encoder of questions and a generator; what an index would find is drawn",
        config={
            "question_encoder": {"model_type": "dpr", "vocab_size": 512, **_NARROW},
            "generator": {
                "model_type": "bart",
                "vocab_size": 512,
                "d_model": 64,
                "encoder_layers": 2,
                "decoder_layers": 2,
                "encoder_attention_heads": 4,
                "decoder_attention_heads": 4,
                "encoder_ffn_dim": 64,
                "decoder_ffn_dim": 64,
                "max_position_embeddings": 64,
            },
            "n_docs": 2,
        },
        inputs={
            "input_ids": ints(200, "B", 12, low=10),
            "attention_mask": ones("B", 12),
            "decoder_input_ids": ints(200, "B", 5, low=10),
            "context_input_ids": ints(200, "2B", 12, low=10),
            "context_attention_mask": ones("2B", 12),
            "doc_scores": floats("B", 2),
        },
    ),
    **dict.fromkeys(
        ("axk2", "mistral_large4_text"),
        Override(
            "its index finds several scores of 0, of which torch and OpenVINO keep others; this one keeps all",
            config={"index_topk": 16},
        ),
    ),
    "reformer": Override(
        "its rows of positions must multiply to its length",
        config={
            "axial_pos_shape": [4, 4],
            "axial_pos_embds_dim": [16, 48],
            "lsh_attn_chunk_length": 4,
            "local_attn_chunk_length": 4,
            "attn_layers": ["local", "lsh"],
            "num_buckets": 2,
        },
        inputs={"input_ids": ints(200, "B", 16, low=10), "attention_mask": ones("B", 16)},
    ),
    "step3p5": Override("its default configuration sets no window", config={"sliding_window": 8}),
    "xmod": Override("needs a language", config={"default_language": "en_XX"}),
    "zamba2": Override(
        "the list of its layers must be as long as their number",
        config={"num_hidden_layers": 2, "layer_types": ["mamba", "hybrid"], "layers_block_type": ["mamba", "hybrid"]},
    ),
    "cosmos3_edge_text": Override(_SECTIONS, config={"rope_parameters": MROPE}),
    "gemma3n_text": Override(
        "shares keys and values over more layers than the small model has", config={"num_kv_shared_layers": 0}
    ),
    "gemma4_assistant": Override(unavailable="drafts from the keys and values of a gemma4 that runs next to it"),
    "gemma4_unified_assistant": Override(
        unavailable="drafts from the keys and values of a gemma4_unified that runs next to it"
    ),
    "glm5_next_text": Override("its index pools as many tokens as it keeps", config={"index_kpool": 4}),
    "longcat_flash": Override("its heads are as wide as their rotary part", config={"head_dim": 8}),
    "pix2struct_text_model": Override("its configuration lacks a setting", config={"initializer_range": 0.02}),
    "t5gemma2_text": Override("its configuration lacks a setting", config={"dropout_rate": 0.0}),
    "t5gemma2_decoder": Override(
        "its configuration lacks a setting; reads the states of an encoder",
        config={"dropout_rate": 0.0},
        inputs={"encoder_hidden_states": floats("B", 12, 64)},
    ),
    "zamba": Override(
        "shares one layer among those of one kind, so it needs two of them",
        config={
            "num_hidden_layers": 4,
            "layer_types": ["mamba", "hybrid"] * 2,
            "layers_block_type": ["mamba", "hybrid"] * 2,
        },
    ),
    "perceiver": Override(
        "its widths have names of their own; reads bytes",
        head="PerceiverForMaskedLM",
        config={
            "d_model": 64,
            "d_latents": 64,
            "num_latents": 16,
            "num_self_attends_per_block": 2,
            "num_self_attention_heads": 4,
            "num_cross_attention_heads": 4,
        },
    ),
    "glm_ocr_text": Override(_SECTIONS, config={"rope_parameters": MROPE}),
    "qwen4_exp_text": Override(
        "its default configuration leaves out its index and its tables",
        config={
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 16,
            "indexer_budget": 8,
            "indexer_compress_ratio": 2,
            "ngram_vocab_size_base": 1000,
            "hc_lowrank": 16,
            "split_ngram_parts": 1,
            "rope_parameters": MROPE,
        },
    ),
    "nemotron_h": Override(
        "its heads must add up to the width of its inner states",
        config={"mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 16, "chunk_size": 8},
    ),
}
