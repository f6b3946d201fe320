"""Models of pictures and videos."""

from __future__ import annotations

from engine.matrix.overrides.override import Override
from engine.matrix.shapes import each, floats, ones

_STAGES = "its encoder reads the stages of its backbone by number"
_FLAT = "reads flat patches, each with its row and column"
_SESSION = "tracks objects through a session of many frames; its picture encoder is what runs here"

_FEW = {"num_queries": 12}
_THREE = {"backbone_config.out_indices": [2, 3, 4], **_FEW}

VISION: dict[str, Override] = {
    "beit": Override(
        "its segmentation reads four layers, more than the shallow model has", head="BeitForImageClassification"
    ),
    "d_fine": Override(_STAGES, level="shallow", config=_THREE),
    "deimv2": Override(_STAGES, level="shallow", config=_THREE),
    "pp_doclayout_v2": Override("asks for more boxes than a small picture has places", level="shallow", config=_FEW),
    "pp_doclayout_v3": Override("asks for more boxes than a small picture has places", level="shallow", config=_FEW),
    "pp_doclayout_v4": Override("asks for more boxes than a small picture has places", level="shallow", config=_FEW),
    "edgetam_video": Override(_SESSION, part="vision_encoder"),
    "sam2_video": Override(_SESSION, part="vision_encoder"),
    "sam3_tracker_video": Override(_SESSION, part="vision_encoder"),
    "lw_detr": Override("its projector needs a scale", config={"projector_scale_factors": [1.0]}),
    "xclip_vision_model": Override(
        "reads whole clips, whose frames it counts", inputs={"pixel_values": floats("4B", 3, 128, 128)}
    ),
    "cvt": Override("its deepest stage must have three layers", config={"depth": [1, 2, 3]}),
    "florence_vision": Override("names its picture otherwise", inputs={"hidden_states": floats("B", 3, 64, 64)}),
    "gemma4_vision": Override(
        "reads flat patches with their places",
        inputs={
            "pixel_values": floats("B", 36, 768),
            "pixel_position_ids": each([[column, row] for row in range(6) for column in range(6)]),
        },
    ),
    "janus_vqgan": Override("its tokens are as many as its patches", config={"num_patches": 4}),
    "kosmos_2_5_vision_model": Override(
        _FLAT, config={"patch_embed_hidden_size": 768}, inputs={"flattened_patches": floats("B", 16, 770)}
    ),
    "pix2struct_vision_model": Override(
        _FLAT, config={"patch_embed_hidden_size": 768}, inputs={"flattened_patches": floats("B", 16, 770)}
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
        "merges its two pictures before the layers whose states it reads",
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
        "reads short clips",
        config={"max_img_size": 64, "visual_prompt_size": 8, "num_frames": 2},
        inputs={"pixel_values": floats("B", 2, 3, 64, 64)},
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
        "cuts its picture into patches that are pictures themselves",
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
        "reads patches as small pictures",
        inputs={"pixel_values": floats("16B", 3, 14, 14), "grid_thw": each([1, 4, 4])},
    ),
    "pp_ocrv5_mobile_rec": Override("reads lines of text", inputs={"pixel_values": floats("B", 3, 48, 320)}),
    "rt_detr_resnet": Override("narrows its picture in the second layer of a stage", config={"depths": [2, 2, 2, 2]}),
    "sapiens2": Override("its default configuration has no head", head="Sapiens2Model"),
    "sam3_video": Override(unavailable="tracks objects through a session of many frames: see sam3"),
    **{
        f"{family}_{part}": Override(unavailable=f"reads inner states of {family}: runs in that row")
        for family in ("sam3", "sam3_lite_text")
        for part in ("detr_encoder", "detr_decoder", "mask_decoder")
    },
    "videomt": Override("reads clips", inputs={"pixel_values": None, "pixel_values_videos": floats("B", 2, 3, 64, 64)}),
}
