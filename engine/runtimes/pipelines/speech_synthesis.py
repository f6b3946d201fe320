"""Audio from text: speech and music."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TextToAudioPipeline

from engine.core.errors import InvalidRequest
from engine.runtimes import checkpoint
from engine.tasks import generation

VOCODER = "vocoder"
"""Folder next to the model's config.json with a vocoder, for models that only make a spectrogram (SpeechT5)."""
VOICES = "voices"
"""Folder with a vector for each voice, NAME.npy, for models that need one (SpeechT5)."""


class Synthesis(TextToAudioPipeline):  # type: ignore[misc]  # transformers has no types
    """Its result has samples, float32 in -1 … 1, and rate, samples a second."""

    transformers_task = "text-to-audio"
    alone = True
    """True: rows have different lengths, and a wave has no mask."""

    def __init__(self, *args: Any, model: Any, **kwargs: Any) -> None:
        self._folder = Path(model.name_or_path)
        if model.config.model_type == "speecht5" and kwargs.get("vocoder") is None:
            from transformers import SpeechT5HifiGan

            if not (self._folder / VOCODER / "config.json").is_file():
                raise ValueError(f"this model makes a spectrogram: put a SpeechT5HifiGan into its folder {VOCODER!r}")
            vocoder = checkpoint.load(SpeechT5HifiGan, self._folder / VOCODER)
            kwargs["vocoder"] = vocoder.to(model.device, model.dtype).eval()
        super().__init__(*args, model=model, **kwargs)

    def _sanitize_parameters(self, **asked: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        voice, speed = asked.pop("voice", None), asked.pop("speed", 1.0)
        options = generation.options(asked)
        forward: dict[str, Any] = {"seed": options.pop("seed", None), "speed": speed, "voice": voice}
        kind = self.model.config.model_type
        if speed != 1.0 and kind != "vits":
            raise InvalidRequest("body.speed: this model has one speed; leave it out")
        if kind == "vits":
            options = {}
        before = {"voice_preset": voice} if kind == "bark" and voice else {}
        return before, {**forward, "generate_kwargs": options}, {}

    def _forward(
        self, model_inputs: Any, *, seed: int | None, speed: float, voice: str | None, generate_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        if seed is not None:
            torch.manual_seed(seed)
        told: dict[str, Any] = {}
        kind = self.model.config.model_type
        if kind == "vits":
            self.model.speaking_rate = self.model.config.speaking_rate * speed
            if self.model.config.num_speakers > 1:
                told["speaker_id"] = _number(voice, self.model.config.num_speakers)
        if kind == "speecht5":
            told["speaker_embeddings"] = self._voice(voice)
        if kind in ("vits", "speecht5"):
            generate_kwargs = {}
        made = super()._forward(model_inputs, forward_params=told, generate_kwargs=generate_kwargs)
        found = super().postprocess(made)
        return {"samples": torch.from_numpy(np.atleast_1d(found["audio"])), "rate": found["sampling_rate"]}

    def postprocess(self, model_outputs: dict[str, Any]) -> dict[str, Any]:
        """Returns the audio unchanged."""
        return {"samples": model_outputs["samples"], "rate": int(model_outputs["rate"])}

    def _voice(self, voice: str | None) -> torch.Tensor:
        known = {path.stem: path for path in sorted((self._folder / VOICES).glob("*.npy"))}
        if not known:
            raise InvalidRequest(f"this model needs voices: put NAME.npy files into its folder {VOICES!r}")
        path = known.get(voice or next(iter(known)))
        if path is None:
            raise InvalidRequest(f"body.voice: {voice!r} is not a voice of this model; one of: {', '.join(known)}")
        vector = np.load(path, allow_pickle=False).astype(np.float32).reshape(1, -1)
        return torch.from_numpy(vector).to(self.model.device, self.model.dtype)


def _number(voice: str | None, count: int) -> int:
    if voice is None:
        return 0
    if not voice.isdecimal() or int(voice) >= count:
        raise InvalidRequest(f"body.voice: this model's voices are the numbers from 0 to {count - 1}, not {voice!r}")
    return int(voice)
