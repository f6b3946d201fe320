"""Makes a model's inputs: real preprocessing if it works offline, otherwise tensors of the right shape."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engine.matrix.build import preprocessing
from engine.matrix.build.parts import setting
from engine.matrix.build.shapes import LAST_WORD, MAKERS, OPTIONAL, WORDS, Make, Sizes, clips

Source = Literal["processors", "shapes", "clips"]
SOURCES: tuple[Source, ...] = ("processors", "shapes", "clips")
"""Real preprocessing; tensors of the right shape; the same with several images in each row."""

Inputs = dict[str, Any]

_MODALITIES = {
    "image": ("get_image_features", ("image_token_id", "image_token_index", "img_context_token_id")),
    "audio": ("get_audio_features", ("audio_token_id", "audio_token_index")),
}
"""The setting for the number of an image's or audio's features in a model, and the one for their token in the text."""


_AUDIO_MASKS = ("input_features_mask", "feature_attention_mask", "padding_mask")


@dataclass(frozen=True)
class Prepared:
    """The inputs, and the names of the real processors that made some of them."""

    inputs: Inputs
    processors: tuple[str, ...]


def prepare(
    model: Any, model_type: str, batch: int, *, source: Source, made: Mapping[str, Make | None], seed: int = 0
) -> Prepared:
    """Makes inputs for `model.forward`, `batch` rows of each.

    `made` says how to make an input, or with None to leave it out. Raises KeyError for a need that no recipe knows,
    and whatever a processor or the model raises while it counts features.
    """
    builder = _Builder(model, model_type, batch, seed, made)
    if source == "processors":
        builder.process_images()
        builder.process_audio()
    if source != "clips":
        builder.pack_patches()
    builder.fill(pictures=clips if source == "clips" else None)
    builder.mask_audio()
    builder.write_text(real=source == "processors")
    builder.place_features()
    builder.place_positions()
    builder.check()
    return Prepared(builder.ordered(), tuple(builder.processors))


class _Builder:
    def __init__(self, model: Any, model_type: str, batch: int, seed: int, made: Mapping[str, Make | None]) -> None:
        self.model, self.model_type, self.batch, self.seed, self.made = model, model_type, batch, seed, made
        self.sizes = Sizes(model.config, batch, seed, str(model_type))
        self.names = inspect.signature(model.forward).parameters
        self.inputs: Inputs = {}
        self.aside: Inputs = {}
        self.processors: list[str] = []

    def process_images(self) -> None:
        if not any(name in self.names for name in ("pixel_values", "flattened_patches")) or "pixel_values" in self.made:
            return
        side = self.sizes.image_side()
        processor = preprocessing.image_processor(self.model_type, self.model.config, side)
        if processor is None:
            return
        images = preprocessing.pictures(self.batch, side, self.seed)
        self._take(processor, processor(images=images, return_tensors="pt"))

    def process_audio(self) -> None:
        if not any(name in self.names for name in ("input_features", "input_values")) or self.made:
            return
        extractor = preprocessing.feature_extractor(self.model_type, self.model.config)
        if extractor is None:
            return
        rate = int(extractor.sampling_rate)
        sounds = preprocessing.sounds(self.batch, rate, self.seed)
        self._take(extractor, extractor(sounds, sampling_rate=rate, return_tensors="pt"))

    def _take(self, processor: Any, values: Mapping[str, Any]) -> None:
        import torch

        self.processors.append(type(processor).__name__)
        for name, value in values.items():
            if not isinstance(value, torch.Tensor):
                continue
            kept = value.float() if value.is_floating_point() else value
            if name in self.names:
                self.inputs[name] = kept
            else:
                self.aside[name] = kept

    def pack_patches(self) -> None:
        """Makes images as patches with a grid, for models whose processor does not run here."""
        if "pixel_values" not in self.names or "pixel_values" in {**self.made, **self.inputs}:
            return
        packed = "grid_thw" if "grid_thw" in self.names else "image_grid_thw"
        if packed in self.names:
            self.inputs["pixel_values"] = MAKERS["patches"](self.sizes)
            self.inputs[packed] = MAKERS[packed](self.sizes)
        elif "spatial_shapes" in self.names:
            for name in ("spatial_shapes", "pixel_attention_mask"):
                self.inputs[name] = MAKERS[name](self.sizes)
            self.inputs["pixel_values"] = MAKERS["padded_patches"](self.sizes)

    def fill(self, pictures: Make | None) -> None:
        """Adds missing inputs. `pictures`: a maker of images other than the usual one."""
        if pictures is not None and "pixel_values" in self.names and "pixel_values" not in self.made:
            self.inputs["pixel_values"] = pictures(self.sizes)
        for name, make in self.made.items():
            if make is not None:
                self.inputs[name] = make(self.sizes)
        for name, parameter in self.names.items():
            needed = parameter.default is inspect.Parameter.empty and parameter.kind not in (
                inspect.Parameter.VAR_KEYWORD,
                inspect.Parameter.VAR_POSITIONAL,
            )
            if name in self.inputs or name in self.made or name not in MAKERS:
                continue
            if needed or (name in OPTIONAL and OPTIONAL[name](self.sizes, self.inputs)):
                self.inputs[name] = MAKERS[name](self.sizes)

    def mask_audio(self) -> None:
        """Makes masks that mask no frame of a spectrogram."""
        import torch

        features = self.inputs.get("input_features")
        if features is None or features.dim() != 3:
            return
        bins = self.sizes.bins()
        frames = features.shape[2] if features.shape[1] == bins else features.shape[1]
        for name in _AUDIO_MASKS:
            if name in self.names and name not in self.inputs and name not in self.made:
                self.inputs[name] = torch.ones(self.batch, frames, dtype=torch.long)

    def write_text(self, *, real: bool) -> None:
        """Makes text of the same length in each row."""
        import torch

        if "input_ids" not in self.names or "input_ids" in self.made or "inputs_embeds" in self.inputs:
            return
        if getattr(self.model, "main_input_name", "input_ids") != "input_ids" and "input_ids" in self.names:
            needed = self.names["input_ids"].default is inspect.Parameter.empty
            if not needed and not setting(self.model.config, "vocab_size"):
                return
        if real:
            tokenizer = preprocessing.tokenizer(self.sizes.vocabulary())
            rows = tokenizer(preprocessing.texts(self.batch), max_length=WORDS, truncation=True)["input_ids"]
            self.inputs["input_ids"] = torch.tensor(rows)
            self.processors.append("tokenizer")
        else:
            self.inputs["input_ids"] = MAKERS["input_ids"](self.sizes)
        end = setting(self.sizes.text, "eos_token_id")
        if isinstance(end, int) and 0 <= end < self.sizes.vocabulary() and not _generates(self.model):
            self.inputs["input_ids"][:, -1] = end  # encoders of text look for it, to take the state at its place
        if "attention_mask" in self.names and "attention_mask" not in self.inputs and "attention_mask" not in self.made:
            self.inputs["attention_mask"] = torch.ones_like(self.inputs["input_ids"])

    def place_features(self) -> None:
        """Puts one placeholder for each feature of an image or audio before the text."""
        import torch

        if "input_ids" not in self.inputs or "input_ids" in self.made:
            return
        specials = [setting(self.model.config, *tokens) for _, tokens in _MODALITIES.values()]
        for token in specials:  # small ones would count as placeholders if they were in the text
            if isinstance(token, int):
                self.inputs["input_ids"].masked_fill_(self.inputs["input_ids"] == token, LAST_WORD - 1)
        kinds = torch.zeros_like(self.inputs["input_ids"])
        for number, (method, tokens) in enumerate(_MODALITIES.values(), start=1):
            token = setting(self.model.config, *tokens)
            count = self._features(method) if isinstance(token, int) else 0
            if not count or not isinstance(token, int):
                continue
            placeholders = torch.full((self.batch, count), token)
            self.inputs["input_ids"] = torch.cat([placeholders, self.inputs["input_ids"]], dim=1)
            kinds = torch.cat([torch.full_like(placeholders, number), kinds], dim=1)
        text_masked = "attention_mask" in self.inputs and "attention_mask" not in self.made
        if text_masked and self.inputs["attention_mask"].shape[1] == WORDS:
            self.inputs["attention_mask"] = torch.ones_like(self.inputs["input_ids"])
        for name in ("mm_token_type_ids",):
            if name in self.names and name not in self.made and kinds.any():
                self.inputs[name] = kinds

    def place_positions(self) -> None:
        """Positions in time, height and width, where the model finds them in a loop over its text: they are
        preprocessing, and a converted graph can't loop."""
        if "position_ids" not in self.names or "position_ids" in self.made or "image_grid_thw" not in self.inputs:
            return
        finders = [module.get_rope_index for module in self.model.modules() if hasattr(module, "get_rope_index")]
        if not finders:
            return
        wanted = inspect.signature(finders[0]).parameters
        given = {name: value for name, value in {**self.aside, **self.inputs}.items() if name in wanted}
        missing = [name for name, one in wanted.items() if one.default is inspect.Parameter.empty and name not in given]
        if not [name for name in missing if name != "kwargs"]:
            self.inputs["position_ids"] = finders[0](**given)[0]

    def _features(self, method: str) -> int:
        """Returns how many features of each row the model will look for in the text."""
        import torch

        known = {**self.aside, **self.inputs}
        methods = [getattr(module, method) for module in self.model.modules() if hasattr(module, method)]
        named = [one for one in methods if next(iter(inspect.signature(one).parameters)) in known]
        if not named:
            return 0
        count = max(named, key=lambda one: len(inspect.signature(one).parameters))
        wanted = inspect.signature(count).parameters
        given = {
            name: known[name]
            for name, parameter in wanted.items()
            if name in known and (name != "input_ids" or parameter.default is inspect.Parameter.empty)
        }
        given.pop("attention_mask", None)
        with torch.no_grad():
            found = count(**given)
        rows = getattr(found, "pooler_output", None)
        if rows is None:
            rows = found[0] if isinstance(found, tuple) else getattr(found, "last_hidden_state", found)
        parts = rows if isinstance(rows, (list, tuple)) else [rows]
        return sum(int(part.numel()) // int(part.shape[-1]) for part in parts) // self.batch

    def check(self) -> None:
        missing = [
            name
            for name, parameter in self.names.items()
            if parameter.default is inspect.Parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and name not in self.inputs
        ]
        if missing:
            raise KeyError(f"no recipe makes the input {', '.join(missing)}")

    def ordered(self) -> Inputs:
        """Sorts inputs by the signature, the order of a trace."""
        first = {name: self.inputs[name] for name in self.names if name in self.inputs}
        return {**first, **self.inputs}


def _generates(model: Any) -> bool:
    can_generate = getattr(model, "can_generate", None)
    return can_generate is not None and bool(can_generate())
