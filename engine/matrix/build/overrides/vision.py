"""Models of images and videos."""

from __future__ import annotations

from engine.matrix.build.overrides.override import Override
from engine.matrix.build.shapes import each, floats, ints, ones, placed_patches, rows, several, value

_BOXES = "needs more boxes than a small image has places"
_FLAT = "reads flat patches, each with its row and column"
_SESSION = "tracks objects through a session of many frames; its image encoder is what runs here"

_NEAR = "; with smaller weights its scores lie so near each other that rounding changes their order"
_FEW = {"num_queries": 12}
_AS_WIDE = "ends as wide as the encoder that reads it"
_SAM3_PARTS = {
    "detr_encoder": {
        "vision_features": several(floats("B", 64, 8, 8)),
        "vision_pos_embeds": several(floats("B", 64, 8, 8)),
        "text_features": floats("B", 6, 64),
    },
    "detr_decoder": {
        "vision_features": floats("B", 64, 64),
        "vision_pos_encoding": floats("B", 64, 64),
        "text_features": floats("B", 6, 64),
        "spatial_shapes": rows([[8, 8]]),
    },
    "mask_decoder": {
        "decoder_queries": floats("B", 12, 64),
        "backbone_features": several(*(floats("B", 64, side, side) for side in (32, 16, 8))),
        "encoder_hidden_states": floats("B", 64, 64),
    },
}

_INTRACLASS = {
    "reduce_channel": [1, 1, 0],
    "return_channel": [1, 1, 0],
    **{
        f"{name}_{ratio}ratio": [[height(side), width(side)], [1, 1], [height(side) // 2, width(side) // 2]]
        for name, height, width in (
            ("vertical_long_to_small_conv", int, lambda side: 1),
            ("horizontal_small_to_long_conv", lambda side: 1, int),
            ("symmetric_conv_long", int, int),
        )
        for ratio, side in (("long", 7), ("mid", 5), ("short", 3))
    },
}
"""The kernels, strides and paddings of its multi-scale convolutions, from the model's docstring."""

VISION: dict[str, Override] = {
    "beit": Override(
        "its segmentation reads four layers, more than the shallow model has", head="BeitForImageClassification"
    ),
    "d_fine": Override(_BOXES, level="shallow", config=_FEW),
    "deimv2": Override(_BOXES, level="shallow", config=_FEW),
    "pp_doclayout_v2": Override(
        _BOXES + _NEAR + "; its default configuration has no thresholds",
        level="shallow",
        noise=0.1,
        config={**_FEW, "class_thresholds": [0.5] * 100, "class_order": list(range(100))},
    ),
    "pp_doclayout_v3": Override(_BOXES + _NEAR, level="shallow", config=_FEW, noise=0.1),
    "pp_doclayout_v4": Override(_BOXES + _NEAR, level="shallow", config=_FEW, noise=0.1),
    "edgetam_video": Override(_SESSION, part="vision_encoder", inputs={"pixel_values": floats("B", 3, 128, 128)}),
    "sam2_video": Override(_SESSION, part="vision_encoder", inputs={"pixel_values": floats("B", 3, 128, 128)}),
    "sam3_tracker_video": Override(_SESSION, part="vision_encoder"),
    "lightglue": Override(
        "stops early and drops points by what it sees, unless told not to",
        config={"depth_confidence": -1.0, "width_confidence": -1.0},
    ),
    "lw_detr": Override("its projector needs a scale", config={"projector_scale_factors": [1.0]}),
    "xclip_vision_model": Override(
        "reads whole clips, whose frames it counts", inputs={"pixel_values": floats("4B", 3, 128, 128)}
    ),
    "cvt": Override("its deepest stage must have three layers", config={"depth": [1, 2, 3]}),
    "florence_vision": Override("names its image otherwise", inputs={"hidden_states": floats("B", 3, 64, 64)}),
    "gemma4_vision": Override(
        "reads flat patches with their places",
        inputs={
            "pixel_values": floats("B", 36, 768),
            "pixel_position_ids": each([[column, row] for row in range(6) for column in range(6)]),
        },
    ),
    "janus_vqgan": Override("its tokens are as many as its patches", config={"num_patches": 4}),
    "kosmos_2_5_vision_model": Override(
        _FLAT, config={"patch_embed_hidden_size": 768}, inputs={"flattened_patches": placed_patches(4, 768)}
    ),
    "pix2struct_vision_model": Override(
        _FLAT, config={"patch_embed_hidden_size": 768}, inputs={"flattened_patches": placed_patches(4, 768)}
    ),
    "llama4_vision_model": Override(
        "its widths depend on each other",
        config={
            "intermediate_size": 256,
            "projector_input_dim": 64,
            "projector_output_dim": 64,
            "vision_output_dim": 64,
        },
    ),
    "mllama_vision_model": Override(
        "reads tiles, and returns the states of several layers side by side",
        config={"intermediate_layers_indices": [0, 1], "vision_output_dim": 192},
        inputs={
            "pixel_values": floats("B", 1, 4, 3, 56, 56),
            "aspect_ratio_ids": ones("B", 1),
            "aspect_ratio_mask": ones("B", 1, 4),
        },
    ),
    "seggpt": Override(
        "merges its two images before the layers whose states it reads",
        config={
            "num_hidden_layers": 4,
            "merge_index": 0,
            "intermediate_hidden_state_indices": [1, 2, 3],
            "image_size": (128, 64),
            "pretrain_image_size": 64,
        },
        inputs={
            "pixel_values": floats("B", 3, 64, 64),
            "prompt_pixel_values": floats("B", 3, 64, 64),
            "prompt_masks": floats("B", 3, 64, 64),
        },
    ),
    "tvp": Override(
        "reads short clips; adds the positions of columns to one row only",
        config={"max_img_size": 64, "visual_prompt_size": 8, "num_frames": 2},
        inputs={"pixel_values": floats(1, 2, 3, 64, 64), "input_ids": ints(200, 1, 12), "attention_mask": ones(1, 12)},
    ),
    "vitmatte": Override(
        "names a stage that the shallow backbone lacks", config={"backbone_config.out_features": ["stage2"]}
    ),
    "zoedepth": Override(
        "names stages that the shallow backbone lacks",
        config={
            "backbone_config.num_hidden_layers": 4,
            "backbone_config.out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
    ),
    "depth_pro": Override(
        "cuts its image into patches that are images themselves",
        config={
            "patch_size": 32,
            "intermediate_hook_ids": [1, 0],
            "intermediate_feature_dims": [64, 64],
            "scaled_images_feature_dims": [64, 64, 64],
            "fusion_hidden_size": 64,
            **{
                f"{part}_model_config.{name}": size
                for part in ("image", "patch", "fov")
                for name, size in (("image_size", 32), ("patch_size", 8))
            },
        },
        inputs={"pixel_values": floats("B", 3, 128, 128)},
    ),
    "glm_image_vqmodel": Override(unavailable="has no forward pass: it makes codes inside of glm_image"),
    "kimi_k25_vision": Override(
        "reads patches as small images",
        inputs={"pixel_values": floats("16B", 3, 14, 14), "grid_thw": each([1, 4, 4])},
    ),
    **dict.fromkeys(
        ("pp_ocrv5_server_det", "pp_ocrv6_medium_det"),
        Override(
            "its default configuration leaves out its blocks and scales",
            config={
                "intraclass_block_config": _INTRACLASS,
                "scale_factor_list": [1, 2, 4, 8],
                "kernel_list": [3, 2, 2],
            },
        ),
    ),
    "pp_ocrv6_small_det": Override(
        "reads the stages of its backbone, as wide as they are",
        config={"layer_list_out_channels": [48, 96, 192, 384]},
    ),
    "phi4_multimodal_vision": Override(
        "torch looks only back where no patch is padding, and a graph always both ways; so one patch is",
        inputs={"patch_attention_mask": each([[True] * 4] * 3 + [[True] * 3 + [False]])},
    ),
    "pp_ocrv5_mobile_rec": Override("reads lines of text", inputs={"pixel_values": floats("B", 3, 96, 320)}),
    "rt_detr": Override(_BOXES + _NEAR, level="shallow", config=_FEW, noise=0.1),
    "rt_detr_v2": Override(_BOXES + _NEAR, level="shallow", config=_FEW, noise=0.1),
    "sapiens2": Override("its default configuration has no head", head="Sapiens2Model"),
    "sam3_video": Override(unavailable="tracks objects through a session of many frames: see sam3"),
    **{
        f"{family}_{part}": Override("reads inner states of the whole model", inputs=made)
        for family in ("sam3", "sam3_lite_text")
        for part, made in _SAM3_PARTS.items()
    },
    "videomt": Override("reads clips", inputs={"pixel_values": None, "pixel_values_videos": floats("B", 2, 3, 64, 64)}),
    **{
        f"{name}_vision": Override(
            "reads strips of patches of any size",
            inputs={"pixel_values": floats(1, 3, 16, "256B"), "target_sizes": each([4, 4])},
        )
        for name in ("minicpm_ocr", "minicpmv4_6", "minicpmv4_7")
    },
    "inkling2_vision": Override(
        "reads patches as small images",
        inputs={"pixel_values": floats("4B", 40, 40, 3), "image_grid_thw": each([1, 2, 2])},
    ),
    "oneformer": Override("reads its task as 77 numbers", inputs={"task_inputs": ints(400, "B", 77)}),
    "omdet-turbo": Override(
        "its encoder reads the stages of its backbone; reads names of classes, and how many each image has",
        level="shallow",
        config={"apply_layernorm_after_vision_backbone": False, "num_queries": 12},
        inputs={
            "pixel_values": floats("B", 3, 128, 128),
            "classes_input_ids": ints(400, "2B", 12),
            "classes_attention_mask": ones("2B", 12),
            "tasks_input_ids": ints(400, "B", 12),
            "tasks_attention_mask": ones("B", 12),
            "classes_structure": each(2),
        },
    ),
    "paddleocr_vl_vision": Override(
        "reads patches as small images",
        inputs={"pixel_values": floats(1, "16B", 3, 14, 14), "grid_thw": each([1, 4, 4])},
    ),
    "rf_detr": Override(
        "names a backbone that has another name now",
        config={
            "backbone_config": {
                "model_type": "rf_detr_dinov2",
                "hidden_size": 64,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "image_size": 64,
                "patch_size": 16,
                "out_features": ["stage2", "stage4"],
                "num_windows": 2,
            }
        },
    ),
    **dict.fromkeys(
        ("efficientnet", "align_vision_model"),
        Override(
            "multiplies its widths and depths",
            level="shallow",
            config={"width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640, "image_size": 64},
        ),
    ),
    "deepseek_ocr2_sam_vision_model": Override(_AS_WIDE, config={"downsample_channels": [64, 64]}),
    "deepseek_ocr2_encoder": Override(
        "reads the patches of another encoder, and how many they are",
        inputs={"inputs_embeds": floats("B", 32, 64), "num_patches": value(16)},
    ),
    "unlimited_ocr_sam_vision_model": Override(_AS_WIDE, config={"downsample_channels": [64, 64]}),
    "unlimited_ocr_vision_encoder": Override(
        "reads the patches of another encoder", inputs={"patch_embeds": floats("B", 64, 4, 4)}
    ),
    "inkling_vision": Override("reads patches as short clips", inputs={"pixel_values": floats("B", 2, 40, 40, 3)}),
    "inkling_mm_model": Override("reads patches as short clips", inputs={"pixel_values": floats("B", 2, 40, 40, 3)}),
    "align": Override("both sides end as wide as its image encoder", level="shallow", config={"projection_dim": 160}),
    **dict.fromkeys(
        ("sam", "sam_hq"),
        Override(
            "its parts meet at one width",
            level="small",
            config={
                "vision_config.output_channels": 64,
                "vision_config.num_pos_feats": 32,
                "mask_decoder_config.vit_dim": 64,
            },
            inputs={"pixel_values": floats("B", 3, 64, 64)},
        ),
    ),
    "sam2": Override(
        "knows the sizes of its feature maps",
        level="small",
        config={
            "vision_config.backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "vision_config.backbone_config.hidden_size": 96,
            "prompt_encoder_config.image_size": 64,
        },
        inputs={"pixel_values": floats("B", 3, 64, 64)},
    ),
    **dict.fromkeys(
        ("sam2_hiera_det_model", "sam2_vision_model"),
        Override("takes images of any size; a small one here", inputs={"pixel_values": floats("B", 3, 128, 128)}),
    ),
    "sam3_tracker": Override(
        "knows the sizes of its feature maps",
        level="small",
        config={
            "vision_config.backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "prompt_encoder_config.image_size": 56,
        },
        inputs={"pixel_values": floats("B", 3, 56, 56)},
    ),
}
