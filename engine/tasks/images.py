"""Tasks `image` (OpenAI's: API reference, "Create image") and `text-to-image` (Hugging Face's: its schema of that name)
for a model here.

OpenAI has no names for the other parameters of a diffusion model. The names here are Hugging Face's, which
vLLM-Omni's and OpenVINO Model Server's image endpoints take in OpenAI's body, too.
"""

from __future__ import annotations

import re
from typing import Any

from engine.core.errors import InvalidRequest, nearest
from engine.core.usage import Usage
from engine.tasks import pipelines
from engine.tasks.pipelines import Ask

MOST_PICTURES = 10
"""Images of one request, as in OpenAI's API."""
_SIDES = (8, 2048)
"""Pixels of a side, least and most."""
_WHOLE = {"num_inference_steps": (1, 1000), "seed": (0, 2**62), "width": _SIDES, "height": _SIDES}
_MOST_GUIDANCE = 100.0
_SHARED = ("num_inference_steps", "guidance_scale", "negative_prompt", "seed")
_FIELDS = frozenset(("prompt", "n", "size", "response_format", "output_format", *_SHARED))
_NO_EFFECT = frozenset(("model", "user", "stream"))
_ONLY = {"response_format": "b64_json", "output_format": "png"}
"""Fields of which a model here supports one value only."""
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})\Z")


def read(task: str, body: dict[str, Any]) -> Ask:
    """Returns the prompt and the parameters. Raises InvalidRequest with the field's path."""
    if task == "text-to-image":
        ask = pipelines.read(task, body)
        return Ask(ask.inputs, ask.single, _painted(ask.parameters, "body.parameters") | {"n": 1})
    for name in sorted(body.keys() - _FIELDS - _NO_EFFECT):
        if body[name] not in (None, "auto"):
            raise InvalidRequest(
                f"body.{name}: not supported by a model in this process; {nearest(name, _FIELDS)}. "
                f"Next: leave it out, or choose a remote provider"
            )
    for name, only in _ONLY.items():
        if body.get(name) not in (None, only):
            raise InvalidRequest(f"body.{name}: a model in this process makes {only} only, not {body[name]!r}")
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidRequest("body.prompt: expected text")
    count = _whole(body.get("n"), "body.n", 1, MOST_PICTURES) or 1
    told = _painted({name: body.get(name) for name in _SHARED} | _sides(body.get("size")), "body")
    return Ask([prompt], True, told | {"n": count}, "body.prompt", "body")


def reply(
    task: str, model: str, outputs: list[Any], body: dict[str, Any], created: int
) -> tuple[dict[str, Any], Usage]:
    """The canonical reply. `outputs`: for each prompt its images, `{"data": BASE64, "format": "png"}`; `created` is
    in Unix seconds."""
    usage = Usage(images=sum(map(len, outputs)))
    if task == "text-to-image":
        made = [{"image": each[0]} for each in outputs]
        return pipelines.reply(task, model, made, not isinstance(body["inputs"], list)), usage
    data = [{"b64_json": picture["data"]} for picture in outputs[0]]
    return {"created": created, "output_format": "png", "data": data}, usage


def _painted(given: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns the parameters, checked; None for absent ones."""
    told: dict[str, Any] = {name: _whole(given.get(name), f"{where}.{name}", *_WHOLE[name]) for name in _WHOLE}
    scale = given.get("guidance_scale")
    if scale is not None:
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= _MOST_GUIDANCE:
            raise InvalidRequest(
                f"{where}.guidance_scale: expected a number from 0 to {_MOST_GUIDANCE:g}, got {scale!r}"
            )
        scale = float(scale)
    negative = given.get("negative_prompt")
    if negative is not None and not isinstance(negative, str):
        raise InvalidRequest(f"{where}.negative_prompt: expected text")
    return told | {"guidance_scale": scale, "negative_prompt": negative}


def _sides(size: Any) -> dict[str, int]:
    if size is None or size == "auto":
        return {}
    found = _SIZE.match(size) if isinstance(size, str) else None
    if found is None or not all(_SIDES[0] <= int(side) <= _SIDES[1] for side in found.groups()):
        raise InvalidRequest(
            f"body.size: expected WIDTHxHEIGHT, each from {_SIDES[0]} to {_SIDES[1]}, or auto; got {size!r}"
        )
    return {"width": int(found[1]), "height": int(found[2])}


def _whole(value: Any, where: str, least: int, most: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest(f"{where}: expected a whole number from {least} to {most}, got {value!r}")
    return value
