"""The fields of a body that a model in this process understands, and the sampling that they set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from engine.core.errors import InvalidRequest, TooLong, nearest
from engine.tasks import structured
from engine.tasks.local_model import Sampling

DEFAULT_MAX_TOKENS = 256
"""Tokens of an answer if the request sets no limit."""

SAMPLING_FIELDS = frozenset(
    (
        "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty",
        "frequency_penalty", "presence_penalty", "stop", "seed", "response_format",
    )
)  # fmt: skip
IGNORED_FIELDS = frozenset(("model", "stream", "stream_options", "user", "store", "metadata", "service_tier"))
"""Accepted without an effect here: the target is chosen, and whether to stream is the caller's call."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,), "best_of": (1,), "logprobs": (False, 0), "top_logprobs": (0,), "echo": (False,), "suffix": ("",),
    "tools": ([],), "functions": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False),
    "logit_bias": ({},), "modalities": (["text"],),
}  # fmt: skip
"""Values of unsupported fields that change nothing; they are accepted."""

_RANGES = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
}
_SEEDS = 2**63
_MOST_K = 2**31 - 1
"""The limits of every runtime: signed numbers of 64 and 32 bits."""
_LEAST_TOP_P = 1e-9
_MOST_MIN_P = 0.999999
"""Only the likeliest token is left, just as with 0 and 1, which not every runtime takes."""


def check(body: dict[str, Any], supported: frozenset[str]) -> None:
    """Raises InvalidRequest for a field that would change the answer and can't be honoured here."""
    for name, value in body.items():
        if name in supported or name in IGNORED_FIELDS or value is None:
            continue
        if any(value == neutral and type(value) is type(neutral) for neutral in _NEUTRAL.get(name, ())):
            continue
        shown = ", ".join(sorted(supported))
        hint = "" if name in _NEUTRAL else f"{nearest(name, supported)}; " if _near(name, supported) else ""
        raise InvalidRequest(
            f"body.{name}: not supported by a model in this process; {hint}supported: {shown}. "
            f"Next: leave it out, or choose a remote provider"
        )


def sampling(body: dict[str, Any]) -> Sampling:
    """Returns the sampling of the answer's tokens. Raises InvalidRequest with the field's name."""
    limit_field = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    limit = _whole(body, limit_field, DEFAULT_MAX_TOKENS, least=1)
    numbers = {name: _number(body, name, *bounds) for name, bounds in _RANGES.items()}
    seed = body.get("seed")
    if seed is not None:
        seed = _whole(body, "seed", 0) % _SEEDS
    return Sampling(
        max_tokens=limit,
        top_k=min(max(_whole(body, "top_k", 0, least=-1), 0), _MOST_K),
        stop=_stop(body.get("stop")),
        seed=seed,
        schema=structured.schema_of(body.get("response_format")),
        **{name: _open(name, value) for name, value in numbers.items() if value is not None},
    )


def fit(asked: Sampling, prompt_tokens: int, context_length: int) -> Sampling:
    """Returns the sampling with its length clipped to the context. Raises TooLong if the prompt leaves no room."""
    room = context_length - prompt_tokens
    if room < 1:
        raise TooLong(
            f"the prompt has {prompt_tokens} tokens or more, and the model reads {context_length} with the answer. "
            f"Next: shorten it, or choose a model with a longer context"
        )
    return asked if asked.max_tokens <= room else replace(asked, max_tokens=room)


def text_of(content: Any, where: str) -> str:
    """Returns the text of a message's content, a string or a list of text parts. Raises InvalidRequest."""
    if isinstance(content, str):
        return whole_text(content, where)
    if not isinstance(content, list):
        raise InvalidRequest(f"{where}: expected text, got {type(content).__name__}")
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise InvalidRequest(f"{where}[{index}]: this model reads only text parts, and this is {kind!r}")
        texts.append(whole_text(part["text"], f"{where}[{index}].text"))
    return "".join(texts)


def whole_text(text: str, where: str) -> str:
    """Returns the text unchanged. Raises InvalidRequest for half of a UTF-16 pair, which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{where}: not valid Unicode at character {error.start} (half of a UTF-16 pair)") from None
    return text


def _open(name: str, value: float) -> float:
    if name == "top_p":
        return max(value, _LEAST_TOP_P)
    return min(value, _MOST_MIN_P) if name == "min_p" else value


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not all(isinstance(text, str) and text for text in strings):
        raise InvalidRequest("body.stop: expected a string or a list of strings, none of them empty")
    return tuple(strings)


def _number(body: dict[str, Any], name: str, least: float, most: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidRequest(f"body.{name}: expected a number from {least:g} to {most:g}, got {value!r}")
    return float(value)


def _whole(body: dict[str, Any], name: str, default: int, least: int | None = None) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise InvalidRequest(f"body.{name}: expected a whole number{bound}, got {value!r}")
    return value


def _near(name: str, options: Iterable[str]) -> bool:
    return nearest(name, options).startswith("did you mean")
