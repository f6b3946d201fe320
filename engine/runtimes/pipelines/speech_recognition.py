"""Speech to text: Whisper, other encoder-decoders, and models with a CTC head, with the times of words and parts.

Long audio: Whisper continues from window to window by its own timestamps (its paper, section 3.8); all other models
read overlapping windows, whose middles are joined (transformers' `chunk_iter`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from transformers import AutomaticSpeechRecognitionPipeline
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from engine.core.errors import InvalidRequest, nearest
from engine.runtimes.pipelines.whisper_suppress import quickened

WINDOW_S = 30.0
"""Seconds of a window, for models other than Whisper."""
OVERLAP_S = 5.0
"""Seconds on each side of a window that are only context."""
PAUSE_S = 0.6
"""A pause after which a segment of a transcript ends, in seconds, for models that return only words."""
LONGEST_PART_S = 12.0
SILENCE = 1e-4
"""A peak below this, 80 dB under full scale, is silence."""


class SpeechRecognition(AutomaticSpeechRecognitionPipeline):  # type: ignore[misc]  # transformers has no types
    """Its result has text, language, seconds, segments as `parts`, and words; times are in seconds."""

    transformers_task = "automatic-speech-recognition"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.type == "seq2seq_whisper":
            quickened(self.model)

    def _sanitize_parameters(self, **asked: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if "timestamps" not in asked:
            made: tuple[dict[str, Any], dict[str, Any], dict[str, Any]] = super()._sanitize_parameters(**asked)
            return made
        generate: dict[str, Any] = {}
        if self.type == "ctc":
            self._refuse(asked, "prompt", "temperature", "translate")
            if asked["num_beams"] > 1:
                raise InvalidRequest("body.num_beams: this model has no decoder, so it has no beams")
        else:
            generate["num_beams"] = asked["num_beams"]
            if asked["temperature"]:
                generate |= {"do_sample": True, "temperature": asked["temperature"]}
        if self.type == "seq2seq_whisper":
            generate |= self._of_whisper(asked)
        elif self.type != "ctc":
            self._refuse(asked, "prompt", "translate")
            if asked["timestamps"]:
                raise InvalidRequest("body.response_format: this model tells no times; use json or text")
        times = {"segment": True, "word": "word", None: None}[asked["timestamps"]]
        if self.type == "ctc" and times:
            times = "word"
        forward = {**generate, **({"return_timestamps": times} if times else {})}
        return {}, forward, {"return_timestamps": times, "language": asked["language"]}

    def _of_whisper(self, asked: dict[str, Any]) -> dict[str, Any]:
        several = bool(getattr(self.model.generation_config, "is_multilingual", False))
        options: dict[str, Any] = {}
        if several:
            options["task"] = "translate" if asked["translate"] else "transcribe"
            options["return_language"] = True
            if asked["language"]:
                options["language"] = self._known(asked["language"])
        elif asked["translate"]:
            raise InvalidRequest("task: this Whisper knows only English, so it can't translate; choose another model")
        elif asked["language"] not in (None, "en", "english"):
            raise InvalidRequest(f"body.language: this Whisper knows only English, not {asked['language']!r}")
        if asked["prompt"]:
            ids = self.tokenizer.get_prompt_ids(asked["prompt"], return_tensors="pt")
            most = self.model.config.max_target_positions // 2 - 1
            if len(ids) > most:
                raise InvalidRequest(f"body.prompt: {len(ids)} tokens are more than the {most} that Whisper reads")
            options["prompt_ids"] = ids
        return options

    def _known(self, language: str) -> str:
        """Returns the code of a language, given as code or English name. Raises InvalidRequest for an unknown one."""
        codes = {token[2:-2] for token in self.model.generation_config.lang_to_id}
        code: str = TO_LANGUAGE_CODE.get(language.lower(), language.lower())
        if code not in codes:
            raise InvalidRequest(f"body.language: this Whisper does not know {language!r}; {nearest(code, codes)}")
        return code

    def _refuse(self, asked: dict[str, Any], *names: str) -> None:
        for name in names:
            if asked[name]:
                where = "task" if name == "translate" else f"body.{name}"
                raise InvalidRequest(f"{where}: this model can't {_CANT[name]}; leave it out, or choose a Whisper")

    def preprocess(self, inputs: np.ndarray, **options: Any) -> Iterator[dict[str, Any]]:
        """Yields the windows, each with the length of the whole."""
        if self.type != "seq2seq_whisper":
            options = {**options, "chunk_length_s": WINDOW_S, "stride_length_s": OVERLAP_S}
        seconds = len(inputs) / self.feature_extractor.sampling_rate
        silent = float(np.abs(inputs).max(initial=0.0)) < SILENCE
        for item in super().preprocess(inputs, **options):
            # A window that is the whole audio has no edges to cut.
            whole = item["is_last"] and item.get("stride", (0, 0, 0))[1:] == (0, 0) and self.type == "seq2seq"
            kept = {name: value for name, value in item.items() if not (whole and name == "stride")}
            yield {**kept, "seconds": seconds, "silent": silent}

    def _forward(self, model_inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        if self.type == "seq2seq_whisper" and not options.get("return_timestamps"):
            # Whisper uses its timestamps to move through a long audio.
            frames = model_inputs["input_features"].shape[-1]
            options["return_timestamps"] = frames > self.feature_extractor.nb_max_frames
        language = options.pop("return_language", None)
        about = {name: model_inputs.pop(name) for name in ("seconds", "silent")}
        made: dict[str, Any] = super()._forward(model_inputs, return_language=language, **options)
        return {**made, **about}

    def postprocess(
        self, model_outputs: list[dict[str, Any]], return_timestamps: Any = None, language: str | None = None
    ) -> dict[str, Any]:
        """Returns the transcript."""
        seconds = float(model_outputs[0]["seconds"])
        if model_outputs[0]["silent"]:  # a Whisper invents words for silence
            return {"text": "", "language": language, "seconds": seconds, "parts": [], "words": []}
        outputs = [{name: each[name] for name in each if name not in ("seconds", "silent")} for each in model_outputs]
        if self.type == "seq2seq_whisper":
            return self._of_whisper_tokens(outputs, return_timestamps, language, seconds)
        found = super().postprocess(outputs, return_timestamps=return_timestamps)
        words = [_timed(chunk, seconds) for chunk in found.get("chunks", ())]
        parts = _parts(words)
        for part in parts:
            part["tokens"] = []
        return {"text": found["text"], "language": language, "seconds": seconds, "parts": parts, "words": words}

    def _of_whisper_tokens(
        self, outputs: list[dict[str, Any]], times: Any, language: str | None, seconds: float
    ) -> dict[str, Any]:
        several = bool(getattr(self.model.generation_config, "is_multilingual", False))

        def read(how: Any) -> dict[str, Any]:
            copies = [dict(each) for each in outputs]
            found: dict[str, Any] = super(SpeechRecognition, self).postprocess(
                copies, return_timestamps=how, return_language=several or None
            )
            return found

        found = read(True if times else None)
        chunks = found.get("chunks") or []
        parts = [_timed(chunk, seconds) for chunk in chunks] if times else []
        for part in parts:
            part["tokens"] = self.tokenizer.encode(part["text"], add_special_tokens=False)
        heard = next((chunk["language"] for chunk in chunks if chunk.get("language")), None)
        return {
            "text": found["text"],
            "language": heard or language or (None if several else "english"),
            "seconds": seconds,
            "parts": parts,
            "words": [_timed(chunk, seconds) for chunk in read("word")["chunks"]] if times == "word" else [],
        }


_CANT = {
    "prompt": "take a prompt",
    "temperature": "sample, for it has no decoder",
    "translate": "translate",
}


def _timed(chunk: dict[str, Any], seconds: float) -> dict[str, Any]:
    start, end = chunk["timestamp"]
    start = 0.0 if start is None else min(float(start), seconds)
    return {"text": chunk["text"], "start": round(start, 3), "end": round(_end(end, start, seconds), 3)}


def _end(end: float | None, start: float, seconds: float) -> float:
    """Ends a segment without an end time at the end of the audio."""
    return seconds if end is None else max(min(float(end), seconds), start)


def _parts(words: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Splits words into segments, at a pause or at a length."""
    parts: list[dict[str, Any]] = []
    for word in words:
        last = parts[-1] if parts else None
        if last and word["start"] - last["end"] < PAUSE_S and word["end"] - last["start"] <= LONGEST_PART_S:
            last["text"] += f" {word['text']}"
            last["end"] = word["end"]
        else:
            parts.append(dict(word))
    return parts
