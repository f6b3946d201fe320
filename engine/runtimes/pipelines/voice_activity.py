"""Parts of an audio with speech: Silero VAD, which returns the probability of speech for each 32 ms.

Source of the windows and of the outcome of the probabilities: silero-vad's `utils_vad.py` (`OnnxWrapper`,
`get_speech_timestamps`), without its cut of speech that is too long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from engine.core.errors import InvalidRequest

RATE = 16_000
WINDOW = 512
"""Samples behind one probability."""
_CONTEXT = 64
"""Samples before a window that the graph reads with it."""
_STATE = (2, 1, 128)
"""Shape of the graph's state."""
_DEFAULTS = {
    "threshold": 0.5, "min_speech_duration_ms": 250, "min_silence_duration_ms": 100, "speech_pad_ms": 30,
}  # fmt: skip
_LONGEST_MS = 60_000
_FALLS_BY = 0.15
"""Speech continues until a probability is this far below the threshold."""


class VoiceActivity:
    """Its result has segments, each with start_s and end_s."""

    tokenizer: Any = None
    image_processor: Any = None
    feature_extractor = SimpleNamespace(sampling_rate=RATE)
    collate = None
    """Never batched: the state after one window is an input of the next."""
    _preprocess_params: dict[str, Any] = {}
    _forward_params: dict[str, Any] = {}
    _postprocess_params: dict[str, Any] = {}
    _pipeline_calls_generate = False

    def __init__(self, model: Any) -> None:
        """`model` is a TorchScript module, or the path of a graph that `convert` turns into one that runs."""
        self.model = model

    @classmethod
    def load(cls, path: Path, device: torch.device, kind: torch.dtype) -> VoiceActivity:
        """Loads TorchScript, always in float32, or ONNX. Raises RuntimeError or ValueError for another file."""
        if path.suffix == ".onnx":
            return cls(path)
        model = torch.jit.load(str(path), map_location=device)
        if not hasattr(model, "reset_states"):
            raise ValueError("it is not Silero VAD, the only TorchScript that is read")
        return cls(model)

    def convert(self, convert: Callable[[Any], Any]) -> None:
        """Replaces the model by the result of `convert`."""
        self.model = convert(self.model)

    def _sanitize_parameters(self, **asked: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        told = {name: asked[name] for name in _DEFAULTS if asked.get(name) is not None}
        for name, value in told.items():
            low, high = (0.01, 0.99) if name == "threshold" else (0, _LONGEST_MS)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise InvalidRequest(
                    f"body.parameters.{name}: expected a number from {low:g} to {high:,}, got {value!r}"
                )
        return {}, {}, {**_DEFAULTS, **told}

    def preprocess(self, samples: Any) -> list[dict[str, Any]]:
        """Returns the audio in windows, the last one padded with silence."""
        sound = torch.as_tensor(samples, dtype=torch.float32)
        windows = torch.nn.functional.pad(sound, (0, -len(sound) % WINDOW)).reshape(1, -1, WINDOW)
        return [{"windows": windows, "samples": len(sound)}]

    def forward(self, row: dict[str, Any]) -> dict[str, Any]:
        """Returns the probability of speech in each window."""
        windows = row["windows"][0]
        run = self._by_torch if isinstance(self.model, torch.nn.Module) else self._by_graph
        with torch.no_grad():
            return {"probabilities": run(windows), "samples": row["samples"]}

    def _by_torch(self, windows: torch.Tensor) -> list[float]:
        self.model.reset_states()
        device = next(self.model.parameters()).device
        return [float(self.model(window, RATE)) for window in windows.to(device)]

    def _by_graph(self, windows: torch.Tensor) -> list[float]:
        """Runs a graph without a state of its own: the state returned by one call is an input of the next."""
        import numpy as np

        request, state, found = self.model.create_infer_request(), np.zeros(_STATE, np.float32), []
        sound = np.concatenate([np.zeros(_CONTEXT, np.float32), windows.flatten().numpy()])
        for index in range(len(windows)):
            heard = sound[None, index * WINDOW : (index + 1) * WINDOW + _CONTEXT]
            made = request.infer({"input": heard, "state": state})
            found.append(float(made["output"][0, 0]))
            state = made["stateN"].copy()
        return found

    def postprocess(
        self,
        outputs: list[dict[str, Any]],
        threshold: float,
        min_speech_duration_ms: float,
        min_silence_duration_ms: float,
        speech_pad_ms: float,
    ) -> dict[str, Any]:
        """Returns the parts with speech, in seconds."""
        found = spoken(
            outputs[0]["probabilities"],
            outputs[0]["samples"],
            threshold=threshold,
            least_speech=min_speech_duration_ms * RATE / 1000,
            least_silence=min_silence_duration_ms * RATE / 1000,
            pad=int(speech_pad_ms * RATE / 1000),
        )
        return {
            "segments": [{"start_s": round(start / RATE, 3), "end_s": round(end / RATE, 3)} for start, end in found]
        }


def spoken(
    probabilities: Sequence[float],
    samples: int,
    *,
    threshold: float,
    least_speech: float,
    least_silence: float,
    pad: int,
) -> list[tuple[int, int]]:
    """Returns the parts with speech, as first and last sample; all lengths are in samples.

    Speech begins at a window with `threshold` and ends after a silence of `least_silence`. Parts shorter than
    `least_speech` are left out, and the rest gets `pad` on both sides, or half of a shorter pause.
    """
    ends_below = max(threshold - _FALLS_BY, 0.01)
    found: list[tuple[int, int]] = []
    start = silent_from = None
    for index, probability in enumerate(probabilities):
        place = index * WINDOW
        if probability >= threshold:
            silent_from = None
            start = place if start is None else start
        elif start is not None and probability < ends_below:
            silent_from = place if silent_from is None else silent_from
            if place - silent_from >= least_silence:
                found.append((start, silent_from))
                start = silent_from = None
    if start is not None:
        found.append((start, samples))
    kept = [(first, last) for first, last in found if last - first > least_speech]
    return _padded(kept, samples, pad) if kept else []


def _padded(parts: list[tuple[int, int]], samples: int, pad: int) -> list[tuple[int, int]]:
    ends = [0, *(last for _, last in parts)]
    starts = [*(first for first, _ in parts), samples]
    gaps = [start - end for end, start in zip(ends, starts, strict=True)]
    inner = [gap // 2 if gap < 2 * pad else pad for gap in gaps[1:-1]]
    before, after = [min(pad, gaps[0]), *inner], [*inner, min(pad, gaps[-1])]
    return [(first - b, last + a) for (first, last), b, a in zip(parts, before, after, strict=True)]
