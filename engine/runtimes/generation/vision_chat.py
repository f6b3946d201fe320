"""Chat about images: the models that support it, and their processors' reading of a conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.artifacts import settings
from engine.core.errors import InvalidRequest
from engine.core.media_access import Media
from engine.media import decoding


def is_visual(folder: Path) -> bool:
    """Returns True if the folder's model reads images and writes text, in a conversation."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    named = settings.read_object(folder / "config.json").get("architectures") or []
    talking = set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values())
    return any(name in talking and name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() for name in named)


def encode(processor: Any, messages: list[dict[str, Any]], dtype: Any) -> tuple[list[int], dict[str, Any]]:
    """Returns the prompt's tokens by the model's own chat template, and further inputs of `generate`: pixel_values and
    their like, as `dtype`. Blocks. Raises InvalidRequest."""
    if not getattr(processor, "chat_template", None):
        raise InvalidRequest("this model has no chat template. Next: use the task image-to-text")
    try:
        made = processor.apply_chat_template(
            [{**message, "content": _parts(message["content"])} for message in messages],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise InvalidRequest(f"body.messages: the model's processor can't read them: {error}") from error
    ids = made.pop("input_ids")[0].tolist()
    extras = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in made.items()
        if name != "attention_mask" and hasattr(value, "is_floating_point")
    }
    return ids, extras


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [
        {"type": "image", "image": decoding.picture(part["image"], part["where"])}
        if isinstance(part.get("image"), Media)
        else part
        for part in content
    ]
