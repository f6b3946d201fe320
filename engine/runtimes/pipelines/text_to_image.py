"""Images from text through diffusers: Stable Diffusion and whatever else its `DiffusionPipeline` loads from a folder
with a `model_index.json`.

Each image has a seed of its own, from which its noise is drawn, so that other images in the batch do not change it. No
safety checker is loaded: images are not checked.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from engine.artifacts import diffusers as layout
from engine.core.errors import SetupError, TooLong
from engine.runtimes import checkpoint


def _parts(folder: Path, kind: torch.dtype) -> dict[str, Any]:
    """Loads the parts with weights. Raises as `Pictures.load`."""
    import diffusers
    import transformers

    libraries = {"diffusers": diffusers, "transformers": transformers}
    return {
        name: checkpoint.load(getattr(libraries[library], cls), folder / name, dtype=kind, use_safetensors=True)
        for name, (library, cls) in layout.parts(folder).items()
        if library in libraries and name in (*layout.COMPUTING, "vae")
    }


_TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
ROW_POSITIONS = 4096
"""Images of one request with a seed are computed together up to so many positions of their latents: a fixed number,
so that the same request is the same arithmetic."""


class Pictures:
    """Its result is the images of one prompt, as PIL images."""

    tokenizer: Any = None
    feature_extractor: Any = None
    image_processor: Any = None
    _preprocess_params: dict[str, Any] = {}
    _forward_params: dict[str, Any] = {}
    _postprocess_params: dict[str, Any] = {}
    _pipeline_calls_generate = False

    def __init__(self, pipe: Any) -> None:
        """`pipe` is the pipeline of diffusers."""
        self._pipe = pipe
        self._takes = frozenset(inspect.signature(pipe.__call__).parameters)
        self.model = pipe.unet if getattr(pipe, "unet", None) is not None else pipe.transformer
        self._scale = int(pipe.vae_scale_factor)
        side = getattr(self.model.config, "sample_size", None) or pipe.default_sample_size
        self._own_size = tuple(side[:2]) if isinstance(side, list | tuple) else (side, side)
        """Returns height and width of the latents of a request without a size."""

    @classmethod
    def load(cls, folder: Path, device: torch.device, kind: torch.dtype) -> Pictures:
        """The pipeline of the folder. Raises OSError, ValueError, RuntimeError, ImportError, or SetupError without
        diffusers."""
        try:
            import diffusers
        except ImportError as error:
            raise SetupError(
                f'images from text need {error.name}. Next: pip install "ipfs-accelerate[diffusers]"'
            ) from error
        if not (folder / layout.INDEX).is_file():
            raise ValueError(f"it has no {layout.INDEX}, so it is not a model of diffusers")
        held = layout.listed(folder)
        left_out: dict[str, Any] = {name: None for name in layout.UNWANTED if name in held}
        if "safety_checker" in held:
            left_out["requires_safety_checker"] = False
        with _quiet():
            pipe = diffusers.DiffusionPipeline.from_pretrained(
                folder, dtype=kind, local_files_only=True, **_parts(folder, kind), **left_out
            )
            pipe.set_progress_bar_config(disable=True)
            return cls(pipe.to(device))

    def convert(self, convert: Callable[[Any], Any]) -> None:
        """Replaces each part that computes by the result of `convert`."""
        for name in layout.COMPUTING:
            part = getattr(self._pipe, name, None)
            if part is not None:
                setattr(self._pipe, name, convert(part))
        self._pipe.vae.decoder = convert(self._pipe.vae.decoder)

    def tokens(self, row: dict[str, Any], options: dict[str, Any]) -> int:
        """Returns the positions of the latents of its images, the measure of a batch."""
        return len(row["prompts"]) * self._positions(options)

    def _positions(self, options: dict[str, Any]) -> int:
        height = options["height"] // self._scale if "height" in options else self._own_size[0]
        width = options["width"] // self._scale if "width" in options else self._own_size[1]
        return int(height * width)

    def _sanitize_parameters(
        self, *, n: int, seed: int | None, negative_prompt: str | None, **painted: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        told = {name: value for name, value in painted.items() if value is not None}
        for name in (*told, *(["negative_prompt"] if negative_prompt is not None else [])):
            if name not in self._takes:
                raise ValueError(f"this model takes no {name}; leave it out")
        for name in ("width", "height"):
            if told.get(name, 0) % self._scale:
                raise ValueError(f"the {name} must be a multiple of {self._scale} pixels, not {told[name]}")
        # A seed promises the same image, so a request with a seed is computed alone.
        within = {**told, "seed": seed} if seed is not None else told
        before = {"n": n, "seed": seed, "negative_prompt": negative_prompt, "positions": self._positions(told)}
        return before, within, {}

    def preprocess(
        self, prompt: str, *, n: int, seed: int | None, negative_prompt: str | None, positions: int
    ) -> list[dict[str, Any]]:
        """Returns the largest groups that are computed together, each image with its seed. Raises TooLong."""
        self._check_length(prompt, "the prompt")
        self._check_length(negative_prompt or "", "negative_prompt")
        if seed is None:
            seeds, each = torch.randint(0, 2**62, (n,)), 1
        else:
            seeds, each = torch.arange(seed, seed + n), max(1, ROW_POSITIONS // positions)
        rows = []
        for part in seeds.split(each):
            row: dict[str, Any] = {"prompts": [prompt] * len(part), "seeds": part}
            if negative_prompt is not None:
                row["negatives"] = [negative_prompt] * len(part)
            rows.append(row)
        return rows

    def _check_length(self, text: str, what: str) -> None:
        longest: tuple[int, int] | None = None
        for name in _TOKENIZERS:
            tokenizer = getattr(self._pipe, name, None)
            if tokenizer is not None:
                count, most = len(tokenizer(text, verbose=False).input_ids), int(tokenizer.model_max_length)
                if count <= most:
                    return
                longest = max(longest or (0, 0), (most, count))
        if longest is not None:
            raise TooLong(f"{what} has {longest[1]} tokens, and the model reads {longest[0]}; shorten it")

    @staticmethod
    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Makes one batch of several images."""
        batch: dict[str, Any] = {"seeds": torch.cat([row["seeds"] for row in rows])}
        for name in rows[0].keys() - {"seeds"}:
            batch[name] = [text for row in rows for text in row[name]]
        return batch

    def forward(self, batch: dict[str, Any], seed: int | None = None, **painted: Any) -> dict[str, torch.Tensor]:
        """Returns the images as bytes, shape (images, height, width, 3)."""
        negative = {"negative_prompt": batch["negatives"]} if "negatives" in batch else {}
        generators = [torch.Generator().manual_seed(int(each)) for each in batch["seeds"]]
        with _quiet():
            made = self._pipe(
                prompt=batch["prompts"], generator=generators, output_type="pt", **negative, **painted
            ).images
        return {"pictures": (made.float().permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to(torch.uint8).cpu()}

    def postprocess(self, outputs: list[dict[str, torch.Tensor]]) -> list[Any]:
        """Returns the images of a prompt."""
        from PIL import Image

        return [Image.fromarray(picture.numpy()) for output in outputs for picture in output["pictures"]]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the notes of diffusers and transformers from the terminal, which shows our progress."""
    from diffusers.utils import logging as own

    from engine.runtimes.quiet import quiet

    level, shown = own.get_verbosity(), own.is_progress_bar_enabled()
    own.set_verbosity(logging.ERROR)
    own.disable_progress_bar()
    try:
        with quiet():
            yield
    finally:
        own.set_verbosity(level)
        if shown:
            own.enable_progress_bar()
