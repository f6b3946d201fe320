"""The parameters of generated text or audio, for models that have one task and no conversation.

The names are transformers' (`GenerationConfig`); Hugging Face's Inference API has them in `parameters`, or in
`parameters.generate_parameters`.
"""

from __future__ import annotations

from typing import Any

from engine.core.errors import InvalidRequest, nearest

_WHOLE = {
    "max_new_tokens": (1, 1_000_000), "min_new_tokens": (0, 1_000_000), "max_length": (1, 1_000_000),
    "min_length": (0, 1_000_000), "num_beams": (1, 16), "no_repeat_ngram_size": (0, 100), "top_k": (0, 1_000_000),
    "seed": (0, 2**63 - 1),
}  # fmt: skip
_NUMBERS = {
    "length_penalty": (-10.0, 10.0), "temperature": (0.0, 5.0), "top_p": (1e-9, 1.0),
    "repetition_penalty": (0.01, 10.0), "guidance_scale": (0.0, 100.0),
}  # fmt: skip
_FLAGS = frozenset(("do_sample", "early_stopping"))
NAMES = frozenset(_WHOLE) | frozenset(_NUMBERS) | _FLAGS | {"generate_parameters"}
"""Parameters of a task whose model generates."""


def options(parameters: dict[str, Any], where: str = "body.parameters") -> dict[str, Any]:
    """Returns the generation's settings, by transformers' names, and `seed`. Raises InvalidRequest with the field's
    path.

    A temperature of 0 is greedy; a higher one samples.
    """
    nested = parameters.get("generate_parameters")
    if nested is not None and not isinstance(nested, dict):
        raise InvalidRequest(f"{where}.generate_parameters: expected an object")
    flat = {name: value for name, value in parameters.items() if name in NAMES and name != "generate_parameters"}
    found: dict[str, Any] = {}
    for path, part in ((where, flat), (f"{where}.generate_parameters", nested or {})):
        for name, value in part.items():
            if value is not None:
                found[name] = _checked(name, value, path)
    temperature = found.get("temperature")
    if temperature == 0:
        del found["temperature"]
        found["do_sample"] = False
    elif temperature is not None:
        found.setdefault("do_sample", True)
    return found


def _checked(name: str, value: Any, where: str) -> Any:
    if name in _WHOLE:
        least, most = _WHOLE[name]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InvalidRequest(f"{where}.{name}: expected a whole number from {least} to {most:,}, got {value!r}")
        return value
    if name in _NUMBERS:
        low, high = _NUMBERS[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise InvalidRequest(f"{where}.{name}: expected a number from {low:g} to {high:g}, got {value!r}")
        return float(value)
    if name in _FLAGS:
        if not isinstance(value, bool):
            raise InvalidRequest(f"{where}.{name}: expected true or false, got {value!r}")
        return value
    raise InvalidRequest(f"{where}.{name}: not a parameter; {nearest(name, NAMES)}")
