"""Tasks `speech` (OpenAI's: API reference, "Create speech") and `text-to-audio` (Hugging Face's) for a model here."""

from __future__ import annotations

import base64
from typing import Any

from engine.core.errors import InvalidRequest, nearest
from engine.core.usage import Usage
from engine.media import decoding
from engine.media.reader import CONTENT_TYPES
from engine.tasks import pipelines
from engine.tasks.pipelines import Ask

FORMATS = ("wav", "flac", "mp3", "opus", "pcm")
"""wav is the default here, in place of OpenAI's mp3: it loses nothing."""
_FIELDS = frozenset(("input", "voice", "response_format", "speed", "seed"))
_NO_EFFECT = frozenset(("model", "user", "stream_format"))


def read(task: str, body: dict[str, Any]) -> Ask:
    """The text and how it is spoken. Raises InvalidRequest with the field's path."""
    if task == "text-to-audio":
        return pipelines.read(task, body)
    for name in sorted(body.keys() - _FIELDS - _NO_EFFECT):
        if body[name] is not None:
            raise InvalidRequest(
                f"body.{name}: not supported by a model in this process; {nearest(name, _FIELDS)}. "
                f"Next: leave it out, or choose a remote provider"
            )
    text, form, voice = body.get("input"), body.get("response_format") or "wav", body.get("voice")
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequest("body.input: expected text")
    if form not in FORMATS:
        raise InvalidRequest(f"body.response_format: {form!r} is not made here; one of: {', '.join(FORMATS)}")
    if voice is not None and not isinstance(voice, str):
        raise InvalidRequest("body.voice: expected a name")
    speed = 1.0 if body.get("speed") is None else body["speed"]
    if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0.25 <= speed <= 4:
        raise InvalidRequest(f"body.speed: expected a number from 0.25 to 4, got {speed!r}")
    parameters = {"voice": voice, "speed": float(speed), "seed": body.get("seed")}
    return Ask([text], True, parameters, "body.input", "body")


def reply(task: str, model: str, outputs: list[Any], body: dict[str, Any]) -> tuple[dict[str, Any], Usage]:
    """The canonical reply: base64 in `audio.data`, as engine.dialects.openai_replies has it for speech."""
    if task == "text-to-audio":
        made = [{"audio": _sound(each, "wav"), "sampling_rate": each["rate"]} for each in outputs]
        inputs = body["inputs"]
        single = not isinstance(inputs, list)
        characters = len(inputs) if single else sum(map(len, inputs))
        return pipelines.reply(task, model, made, single), Usage(characters=characters)
    form = body.get("response_format") or "wav"
    return {"object": "audio.speech", "audio": _sound(outputs[0], form)}, Usage(characters=len(body["input"]))


def _sound(output: dict[str, Any], form: str) -> dict[str, str]:
    data = decoding.encoded_sound(output["samples"], output["rate"], form)
    return {"data": base64.b64encode(data).decode("ascii"), "format": form, "content_type": CONTENT_TYPES[form]}
