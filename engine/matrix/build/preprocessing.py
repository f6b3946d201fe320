"""Real preprocessing without a network: a tokenizer with a tiny vocabulary, and the image and audio processors of the
model type, built from their defaults and fitted to the size of the small model."""

from __future__ import annotations

import importlib.util
from typing import Any

from engine.matrix.build.parts import setting

SENTENCES = (
    "the small model reads a short line of text and answers with another one",
    "an image of two cats that sleep on an old red sofa near the window",
    "numbers words and names are all that this tiny vocabulary has to know",
    "every row of a batch has its own text so that no two rows are equal",
)
"""The texts of the rows of a batch; longer batches begin again."""
_FIRST = 10
_SAMPLE_RATE = 16000
_SECONDS = 1.0
_PIXEL_COUNT = 3000
"""A `shortest_edge` beyond this counts pixels, not the length of an edge (Qwen2-VL's processors)."""


def can_read_images() -> bool:
    """Returns True with Pillow, which image processors need; without it images are made as tensors."""
    return importlib.util.find_spec("PIL") is not None


def tokenizer(vocabulary: int) -> Any:
    """Makes a real tokenizer of whole words, with ids from 10 to below `vocabulary`."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    first = _FIRST if vocabulary > _FIRST + len(words) else min(4, vocabulary - 1)
    ids = {word: first + number for number, word in enumerate(words) if first + number < vocabulary}
    unknown = min(3, vocabulary - 1)
    model = Tokenizer(WordLevel({"<unk>": unknown, **ids}, unk_token="<unk>"))
    model.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>", pad_token="<unk>")


def texts(batch: int) -> list[str]:
    return [SENTENCES[row % len(SENTENCES)] for row in range(batch)]


def image_processor(model_type: str, config: Any, side: tuple[int, int]) -> Any | None:
    """Makes the type's own image processor, for images of `side` (height, width); None if none runs here."""
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    names = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type)
    if not names or not can_read_images():
        return None
    built = _construct(names.get("pil") or "", {})
    if built is None:
        return None
    fitted = _fitted(built, config, side)
    return _construct(type(built).__name__, fitted) if fitted else built


def feature_extractor(model_type: str, config: Any) -> Any | None:
    """Makes the type's own audio processor; None if none runs here."""
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

    name = FEATURE_EXTRACTOR_MAPPING_NAMES.get(model_type)
    built = _construct(name, {}) if name else None
    if built is None or not hasattr(built, "sampling_rate"):
        return None
    bins = setting(config, "num_mel_bins")
    if isinstance(bins, int) and isinstance(getattr(built, "feature_size", None), int) and built.feature_size not in (
        1, bins
    ):  # fmt: skip
        return _construct(name, {"feature_size": bins})
    return built


def pictures(batch: int, side: tuple[int, int], seed: int) -> list[Any]:
    """Makes images of noise, channels last, 0 … 255."""
    import numpy as np

    draw = np.random.default_rng(seed)
    return [draw.integers(0, 256, (*side, 3), dtype=np.uint8) for _ in range(batch)]


def sounds(batch: int, rate: int, seed: int) -> list[Any]:
    """Makes a second of noise over a tone for each row."""
    import numpy as np

    draw = np.random.default_rng(seed)
    time_s = np.arange(int(rate * _SECONDS)) / rate
    return [
        (0.3 * np.sin(2 * np.pi * (220 + 110 * row) * time_s) + 0.05 * draw.standard_normal(len(time_s))).astype("f4")
        for row in range(batch)
    ]


def _construct(name: str, settings: dict[str, Any]) -> Any | None:
    """Builds a class of transformers by name; None if it needs a missing package."""
    import transformers

    try:
        return getattr(transformers, name)(**settings)
    except (AttributeError, ImportError, TypeError, ValueError):
        return None


def _fitted(processor: Any, config: Any, side: tuple[int, int]) -> dict[str, Any]:
    """Returns settings that make the processor's images fit the small model."""
    height, width = side
    settings: dict[str, Any] = {}
    size = getattr(processor, "size", None)
    if size is not None:
        given = {name: value for name, value in dict(size).items() if value is not None}
        settings["size"] = _size(given, height, width) or given
    if getattr(processor, "crop_size", None) is not None:
        settings["crop_size"] = {"height": height, "width": width}
    for name, source in (("patch_size", "patch_size"), ("merge_size", "spatial_merge_size"),
                         ("temporal_patch_size", "temporal_patch_size")):  # fmt: skip
        wanted = setting(config, source)
        if isinstance(getattr(processor, name, None), int) and isinstance(wanted, int):
            settings[name] = wanted
    return settings


def _size(given: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    if "height" in given:
        return {"height": height, "width": width}
    edges = {name for name in given if name in ("shortest_edge", "longest_edge")}
    if any(isinstance(given[name], int) and given[name] > _PIXEL_COUNT for name in edges):
        return dict.fromkeys(edges, height * width)
    return dict.fromkeys(edges, min(height, width))
