"""Tasks `transcription` and `audio-translation`: OpenAI's (API reference, "Create transcription" and "Create
translation").

What is not a text alone is made here of the parts with their times: segments, words, SubRip and WebVTT.
"""

from __future__ import annotations

import zlib
from typing import Any

from engine.core.errors import InvalidRequest, nearest
from engine.core.media_access import Media
from engine.core.usage import Usage
from engine.tasks.pipelines import Ask

FORMATS = ("json", "text", "verbose_json", "srt", "vtt")
_GRANULARITIES = ("segment", "word")
_FIELDS = frozenset(
    ("file", "language", "prompt", "response_format", "temperature", "timestamp_granularities", "num_beams")
)
_NO_EFFECT = frozenset(("model", "user", "stream", "chunking_strategy"))
_MOST_BEAMS = 16


def read(task: str, body: dict[str, Any]) -> Ask:
    """Reads the audio and its parameters. Raises InvalidRequest with the field's path."""
    for name in sorted(body.keys() - _FIELDS - _NO_EFFECT):
        if body[name] not in (None, [], {}):
            raise InvalidRequest(
                f"body.{name}: not supported by a model in this process; {nearest(name, _FIELDS)}. "
                f"Next: leave it out, or choose a remote provider"
            )
    sound = body.get("file")
    if not isinstance(sound, Media):
        raise InvalidRequest('body.file: expected a sound: a path, a data: URL, or {"data": BASE64}')
    parameters = {
        "translate": task == "audio-translation",
        "language": _text(body, "language"),
        "prompt": _text(body, "prompt"),
        "temperature": _number(body, "temperature"),
        "num_beams": _beams(body),
        "timestamps": _timestamps(body),
    }
    return Ask([sound], True, parameters, "body.file", "body")


def reply(task: str, model: str, outputs: list[Any], body: dict[str, Any]) -> tuple[dict[str, Any], Usage]:
    """The canonical reply: a transcript as text, srt or vtt is the whole of `text`. `outputs` as
    engine.runtimes.pipelines.speech_recognition has them: text, language, seconds, parts and words."""
    found = outputs[0]
    usage = Usage(audio_s=found["seconds"])
    form = body.get("response_format") or "json"
    text = found["text"].strip()
    if form in ("srt", "vtt"):
        return {"text": (_srt if form == "srt" else _vtt)(found["parts"])}, usage
    counted = {"type": "duration", "seconds": round(found["seconds"], 3)}
    if form in ("json", "text"):
        return {"text": text, "usage": counted}, usage
    wanted = body.get("timestamp_granularities") or ["segment"]
    made: dict[str, Any] = {
        "task": "translate" if task == "audio-translation" else "transcribe",
        "language": found["language"] or "",
        "duration": round(found["seconds"], 3),
        "text": text,
    }
    if "segment" in wanted:
        temperature = float(body.get("temperature") or 0)
        made["segments"] = [_segment(index, part, temperature) for index, part in enumerate(found["parts"])]
    if "word" in wanted:
        made["words"] = [
            {"word": word["text"].strip(), "start": word["start"], "end": word["end"]} for word in found["words"]
        ]
    return {**made, "usage": counted}, usage


def _segment(index: int, part: dict[str, Any], temperature: float) -> dict[str, Any]:
    text = part["text"].encode()
    return {
        "id": index,
        "seek": 0,
        "start": part["start"],
        "end": part["end"],
        "text": part["text"],
        "tokens": part["tokens"],
        "temperature": temperature,
        "avg_logprob": None,
        # As OpenAI's Whisper counts it (whisper/utils.py, compression_ratio).
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 4) if text else None,
        "no_speech_prob": None,
    }


def _srt(parts: list[dict[str, Any]]) -> str:
    blocks = [
        f"{index}\n{_clock(part['start'], ',')} --> {_clock(part['end'], ',')}\n{part['text'].strip()}\n"
        for index, part in enumerate(parts, 1)
    ]
    return "\n".join(blocks)


def _vtt(parts: list[dict[str, Any]]) -> str:
    lines = (f"{_clock(part['start'], '.')} --> {_clock(part['end'], '.')}\n{part['text'].strip()}\n" for part in parts)
    return "\n".join(["WEBVTT\n", *lines])


def _clock(seconds: float, point: str) -> str:
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _timestamps(body: dict[str, Any]) -> str | None:
    """word, segment or None: the finest that the reply needs."""
    form = body.get("response_format") or "json"
    if form not in FORMATS:
        raise InvalidRequest(f"body.response_format: {form!r} is not a format; one of: {', '.join(FORMATS)}")
    wanted = body.get("timestamp_granularities")
    if wanted is not None and not (
        isinstance(wanted, list) and wanted and all(each in _GRANULARITIES for each in wanted)
    ):
        raise InvalidRequest(f"body.timestamp_granularities: expected a list of {' and '.join(_GRANULARITIES)}")
    if wanted and form != "verbose_json":
        raise InvalidRequest("body.timestamp_granularities: only response_format=verbose_json has them")
    if form == "verbose_json" and "word" in (wanted or ()):
        return "word"
    return "segment" if form in ("verbose_json", "srt", "vtt") else None


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"body.{name}: expected text")
    return value or None


def _number(body: dict[str, Any], name: str) -> float:
    value = body.get(name)
    value = 0.0 if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidRequest(f"body.{name}: expected a number from 0 to 1, got {value!r}")
    return float(value)


def _beams(body: dict[str, Any]) -> int:
    value = body.get("num_beams")
    value = 1 if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_BEAMS:
        raise InvalidRequest(f"body.num_beams: expected a whole number from 1 to {_MOST_BEAMS}, got {value!r}")
    return value
