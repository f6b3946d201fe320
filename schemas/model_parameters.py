"""Types of the usual fields of `model.parameters`, so that a mistake is found before a run begins.

Fields that are not listed are passed on: servers have their own. One that is nearly a listed one is a slip of the pen.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

_NUMBER, _COUNT, _FLAG, _TEXT, _OBJECT, _LIST = (
    "a number",
    "a whole number",
    "true or false",
    "text",
    "an object",
    "a list",
)
_TEXTS = "text or a list of texts"
_TYPES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "temperature", "top_p", "min_p", "typical_p", "typical", "frequency_penalty", "presence_penalty",
            "repetition_penalty", "repeat_penalty", "length_penalty", "speed",
        ),
        (_NUMBER,),
    ),
    **dict.fromkeys(
        (
            "max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_input_tokens",
            "min_tokens", "n", "best_of", "seed", "top_k", "top_n", "top_logprobs", "dimensions",
        ),
        (_COUNT,),
    ),
    **dict.fromkeys(
        ("stream", "echo", "store", "parallel_tool_calls", "ignore_eos", "skip_special_tokens", "return_documents"),
        (_FLAG,),
    ),
    **dict.fromkeys(("user", "service_tier", "reasoning_effort", "encoding_format", "quality", "size"), (_TEXT,)),
    **dict.fromkeys(("logit_bias", "metadata", "stream_options", "chat_template_kwargs"), (_OBJECT,)),
    "stop": (_TEXTS,),
    "logprobs": (_FLAG, _COUNT),
    "response_format": (_OBJECT, _TEXT),
    "tool_choice": (_OBJECT, _TEXT),
    "tools": (_LIST,),
}  # fmt: skip
PARAMETER = "model_parameter"
"""The type of pydantic's error for one that is wrong."""
_NEAR = 0.85
"""Names that are more alike than this are taken for a slip."""


def problem_of(parameters: Mapping[str, Any]) -> str | None:
    """The first thing that is wrong with them, as `NAME: got X; expected Y. Fix: Z`; None: nothing that is known."""
    for name, value in parameters.items():
        if name in _TYPES:
            if value is None or any(_is(kind, value) for kind in _TYPES[name]):
                continue
            expected = " or ".join(_TYPES[name])
            return f"{name}: got {_said(value)}; expected {expected}. Fix: {_fix(value, _TYPES[name])}"
        near = get_close_matches(str(name).replace("-", "_").lower(), _TYPES, n=1, cutoff=_NEAR)
        if near:
            return f"{name}: got a name that no server knows; expected {near[0]}. Fix: write {near[0]}"
    return None


def _is(kind: str, value: Any) -> bool:
    if kind == _NUMBER:
        return type(value) in (int, float) and value == value
    if kind == _COUNT:
        return type(value) is int
    if kind == _FLAG:
        return type(value) is bool
    if kind == _TEXT:
        return type(value) is str
    if kind == _OBJECT:
        return isinstance(value, Mapping)
    items = value if isinstance(value, list | tuple) else None
    if kind == _LIST:
        return items is not None
    return type(value) is str or (items is not None and all(type(item) is str for item in items))


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        odd = next((item for item in value if type(item) is not str), None)
        return f"a list with {_said(odd)}" if odd is not None else "a list"
    if isinstance(value, Mapping):
        return "an object"
    if type(value) is bool:
        return "true" if value else "false"
    return f"the text {value!r}" if type(value) is str else repr(value)


def _fix(value: Any, kinds: tuple[str, ...]) -> str:
    items = value if isinstance(value, list | tuple) else (value,)
    if any(type(item) is bool for item in items) and (_TEXTS in kinds or _TEXT in kinds):
        return "put quotes around it: YAML reads no, off, yes and on as false and true"
    if type(value) is str and _reads_as(value, kinds):
        return "write it without quotes"
    return "quote each text" if _TEXTS in kinds else f"write {' or '.join(kinds)}"


def _reads_as(text: str, kinds: tuple[str, ...]) -> bool:
    """True for a text that would be right if YAML did not take it for one."""
    if _FLAG in kinds and text in ("true", "false"):
        return True
    try:
        return _is(kinds[-1], float(text) if _NUMBER in kinds else int(text))
    except ValueError:
        return False
