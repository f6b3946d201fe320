"""Picks the most complete class of a model type: the one with a head, as a user would load it."""

from __future__ import annotations

import importlib
from typing import Any

MAPPINGS = (
    "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES",
    "MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING_NAMES",
    "MODEL_FOR_CTC_MAPPING_NAMES",
    "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",
    "MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES",
    "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES",
    "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
    "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES",
    "MODEL_FOR_MASK_GENERATION_MAPPING_NAMES",
    "MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING_NAMES",
    "MODEL_FOR_TABLE_QUESTION_ANSWERING_MAPPING_NAMES",
    "MODEL_FOR_DOCUMENT_QUESTION_ANSWERING_MAPPING_NAMES",
    "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_TIME_SERIES_PREDICTION_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_TO_IMAGE_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_MATTING_MAPPING_NAMES",
    "MODEL_FOR_KEYPOINT_DETECTION_MAPPING_NAMES",
    "MODEL_FOR_KEYPOINT_MATCHING_MAPPING_NAMES",
    "MODEL_FOR_POSE_ESTIMATION_MAPPING_NAMES",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_MAPPING_NAMES",
    "MODEL_FOR_BACKBONE_MAPPING_NAMES",
)
"""transformers' tables that are searched for the class, the most complete one first."""


def model_class(config_class: Any, model_type: str) -> Any | None:
    """Returns the class; None if transformers has no class that this configuration alone can build."""
    from transformers.models.auto import modeling_auto

    names: list[str] = []
    tables = [*MAPPINGS, *sorted(name for name in vars(modeling_auto) if name.endswith("_MAPPING_NAMES"))]
    for table in tables:
        if table == "CONFIG_MAPPING_NAMES":
            continue
        found = getattr(modeling_auto, table).get(model_type)
        names += [found] if isinstance(found, str) else list(found or ())
    modules = _modules(config_class)
    found = [chosen for name in names if (chosen := _in_modules(name, modules)) is not None]
    exact = [chosen for chosen in found if getattr(chosen, "config_class", None) is config_class]
    return next(iter(exact or found), None) or _own_class(config_class, modules)


def class_named(name: str, config_class: Any) -> Any | None:
    """Returns a class of the configuration's own file, or of transformers, by its name."""
    return _in_modules(name, _modules(config_class))


def _in_modules(name: str, modules: list[Any]) -> Any | None:
    for module in [*modules, importlib.import_module("transformers")]:
        if (chosen := getattr(module, name, None)) is not None:
            return chosen
    return None


def _modules(config_class: Any) -> list[Any]:
    """Returns the model files next to the configuration's file."""
    name = config_class.__module__.replace(".configuration_", ".modeling_")
    try:
        return [importlib.import_module(name)]
    except ModuleNotFoundError:
        return []


def _own_class(config_class: Any, modules: list[Any]) -> Any | None:
    """Finds a model that no table lists, because it is part of another one."""
    found = [value for module in modules for value in vars(module).values() if _built_from(value, config_class, module)]
    return found[-1] if found else None


def _built_from(value: Any, config_class: Any, module: Any) -> bool:
    from transformers import PreTrainedModel

    return (
        isinstance(value, type)
        and issubclass(value, PreTrainedModel)
        and value.__module__ == module.__name__
        and getattr(value, "config_class", None) is config_class
        and "forward" in vars(value)
    )
