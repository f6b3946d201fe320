"""Refuses requests that can't succeed before they wait or cost anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from typing import Any

from engine.core.clock import Clock
from engine.core.errors import InvalidRequest, TooLong
from engine.core.pipeline import Layer, Middleware, Stage
from engine.core.request import Context, Request, Result
from engine.core.server_info import ServerInfo
from engine.middleware.layer_context import LayerContext
from engine.middleware.rate_limit import Cost, VectorBucket, cost_of, limits_of
from engine.schemas import TargetSpec
from engine.schemas.policy import PolicySpec

_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_CUTS = ("truncate", "truncate_prompt_tokens", "truncation")
"""Fields that make a server cut a prompt that is too long."""


class Preflight(Middleware):
    """Checks a request against its task's form and against the known limits of the target.

    It refuses only what every provider refuses. Types are those of OpenAI's API reference; ranges are left to the
    providers where these differ: llama.cpp reads max_tokens=-1 as no limit, and vLLM takes any role. Raises
    InvalidRequest and TooLong.
    """

    name = "preflight"
    why = "before the queue, so that a hopeless request never waits; after the target's choice, for each has its limits"
    wraps = {
        "retry": "no other try helps",
        "hedge": "no other call helps",
        "queue": "a request that can't succeed must not wait",
        "rate_limit": "a request that can never pass must not wait in its line",
    }
    wrapped_by = {"fallback": "a request that is too long for one target may fit the next one's model"}

    def __init__(
        self, next: Stage, target: TargetSpec, policy: PolicySpec, primary: bool, clock: Clock, server_info: ServerInfo
    ) -> None:
        self.next = next
        self.server_info = server_info
        """The server's facts; those of the configuration take precedence."""
        model, provider = target.model, target.provider
        self.model = target.model_id
        self.tasks = frozenset(model.tasks)
        self.defaults = model.parameters
        self.context_length = model.context_length
        self.chars_per_token = policy.preflight.max_chars_per_token
        # Such a request names its own model, which is unknown here. As in engine/middleware/parameters.py.
        self.open = primary and provider.kind == "remote" and not model.pin
        self.own_names = frozenset({model.name, target.model_id, *model.ids.values()})
        # A model in this process cuts answers, and texts that it embeds, to its context.
        self.cuts = provider.kind == "local"
        self.limits = policy.rate_limit
        rates = [None if rate is None else rate / 60 for rate in limits_of(self.limits)]
        self.full = VectorBucket(rates, self.limits.burst_s, clock) if self.limits.enabled and any(rates) else None
        """The most that the rate limit lets pass at once, for any key."""

    async def __call__(self, request: Request, context: Context) -> Result:
        context.cost = self.check(request)
        return await self.next(request, context)

    def check(self, request: Request) -> Cost | None:
        """Returns the request's cost at the rate limit, if that has limits of its own.

        Raises InvalidRequest or TooLong, with the path of the field and the next step.
        """
        body = request.body
        size = check_body(request.task, body)
        if (
            self.tasks
            or self.context_length is not None
            or self.server_info.tasks
            or self.server_info.context_length is not None
        ):
            wanted = body.get("model")
            if wanted is None or wanted in self.own_names or not self.open:
                self._check_model(request, size)
        if self.full is not None:
            if self.defaults:
                request = replace(request, body={**self.defaults, **body})
            cost = cost_of(request, self.limits, size if request.task == "chat" else None)
            self.full.refuse_impossible(cost)
            return cost
        return None

    def _check_model(self, request: Request, size: float) -> None:
        """`size` is the length of the longest prompt: characters, or tokens below zero."""
        said = self.server_info
        if not self.tasks and said.tasks and request.task not in said.tasks:
            raise InvalidRequest(
                f"task: {self.model!r} is not for {request.task}, as its server says; it does: "
                f"{', '.join(sorted(said.tasks))}. Next: choose another model, or another provider.base_url"
            )
        if self.tasks and request.task not in self.tasks:
            raise InvalidRequest(
                f"task: {self.model!r} is not for {request.task}; it does: {', '.join(sorted(self.tasks))}. "
                "Next: choose another model, or correct model.tasks"
            )
        room, embeds, source = self.context_length, request.task == "embedding", "model.context_length"
        if room is None:
            room, source = said.context_length, "as its server says"
        if room is None or (self.cuts and embeds) or said.cuts:
            return
        whole = room
        if self.context_length is None:
            room = min(room, said.max_prompt_tokens or room)
        body = request.body
        least = -size if size < 0 else size / self.chars_per_token
        if least > room and not any(body.get(name) for name in _CUTS):
            shown = f"{-size:.0f} tokens" if size < 0 else f"{size:.0f} characters, {least:.0f} tokens or more,"
            raise TooLong(
                f"{_prompt_path(request.task)}: {shown} and {self.model!r} has room for {room} ({source}). "
                "Next: shorten it, or choose a model with a longer context"
            )
        if self.cuts or embeds:
            return
        for name in _LIMITS:
            limit = body.get(name)
            if limit is not None and limit > whole:
                raise TooLong(
                    f"body.{name}: {limit} is more than the {whole} tokens that {self.model!r} has for prompt and "
                    f"answer ({source}). Next: request fewer, or choose a model with a longer context"
                )


def check_body(task: str, body: dict[str, Any]) -> float:
    """Returns the length of the longest prompt in a body: characters, or for a prompt in tokens minus their number.

    Raises InvalidRequest for a body that can't be right.
    """
    for name, value in body.items():
        check = _FIELDS.get(name)
        if check is not None and value is not None:
            check(name, value)
    if task == "chat" or task == "token-count":
        return _chat(body)
    size = _SIZES.get(task)
    return 0 if size is None else size(body)


def _chat(body: dict[str, Any]) -> float:
    messages = body.get("messages")
    if not isinstance(messages, list | tuple) or not messages:
        raise InvalidRequest('body.messages: expected a list with at least one message, {"role": …, "content": …}')
    size = 0
    for index, message in enumerate(messages):
        if type(message) is dict:
            content = message.get("content")
            if type(content) is str and type(message.get("role")) is str:
                size += len(content)
                continue
        size += _odd_message(message, f"body.messages[{index}]")
    return size


def _odd_message(message: Any, where: str) -> int:
    """Returns the characters of a message that is not plain text. Raises InvalidRequest."""
    if not isinstance(message, dict):
        raise InvalidRequest(f"{where}: expected an object with role and content, got {_shown(message)}")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise InvalidRequest(
            f"{where}.role: expected a role such as system, user, assistant or tool; got {_shown(role)}"
        )
    content = message.get("content")
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list | tuple):
        return sum(_part(part, f"{where}.content[{index}]") for index, part in enumerate(content))
    if content is not None:
        raise InvalidRequest(f"{where}.content: expected text or a list of parts, got {_shown(content)}")
    if not message.keys() - {"role", "name", "content"} and ("content" not in message or role != "assistant"):
        raise InvalidRequest(f"{where}: got no content. Next: give it a content, or leave it out")
    return 0


def _part(part: Any, where: str) -> int:
    """Returns the characters of a part of a message. Raises InvalidRequest."""
    if isinstance(part, str):
        return len(part)
    if not isinstance(part, dict):
        raise InvalidRequest(f'{where}: expected a part such as {{"type": "text", "text": …}}, got {_shown(part)}')
    text = part.get("text")
    return len(text) if isinstance(text, str) else 0


def _completion(body: dict[str, Any]) -> float:
    prompt = body.get("prompt")
    if prompt is None:  # OpenAI: "as if from the beginning of a new document"; vLLM: with prompt_embeds
        return 0
    return _longest(prompt, "body.prompt")


def _rerank(body: dict[str, Any]) -> float:
    query, documents = body.get("query"), body.get("documents")
    if not isinstance(query, str) or not query:
        raise InvalidRequest("body.query: expected a text that is not empty")
    if not isinstance(documents, list | tuple) or not documents:
        raise InvalidRequest("body.documents: expected a list with at least one text")
    longest = 0
    for index, document in enumerate(documents):
        text = document.get("text") if isinstance(document, dict) else document
        if not isinstance(text, str):
            raise InvalidRequest(f'body.documents[{index}]: expected a text, or {{"text": …}}')
        longest = max(longest, len(text))
    return len(query) + longest


def _embedding(body: dict[str, Any]) -> float:
    given = body.get("input")
    if given is None and body.get("messages"):  # vLLM embeds a conversation
        return 0
    if given is None or given == "":
        raise InvalidRequest("body.input: expected a text or a list of texts, and none of it empty")
    return _longest(given, "body.input")


def _response(body: dict[str, Any]) -> float:
    given = body.get("input")
    if isinstance(given, str):
        return len(given)
    if given is None:
        if body.get("prompt") or body.get("conversation") or body.get("previous_response_id"):
            return 0
        raise InvalidRequest("body.input: expected a text or a list of items")
    if not isinstance(given, list | tuple) or not given:
        raise InvalidRequest(f"body.input: expected a text or a list of items, got {_shown(given)}")
    return sum(_odd_message(item, f"body.input[{index}]") for index, item in enumerate(given) if _is_message(item))


def _is_message(item: Any) -> bool:
    """Returns True if an item of a response's input is a message, and not a call, its output or a reference."""
    return not isinstance(item, dict) or "role" in item


def _moderation(body: dict[str, Any]) -> float:
    given = body.get("input")
    if not given or not isinstance(given, str | list | tuple):
        raise InvalidRequest("body.input: expected a text, a list of texts, or a list of parts")
    return 0


def _text_of(name: str) -> Callable[[dict[str, Any]], float]:
    def check(body: dict[str, Any]) -> float:
        text = body.get(name)
        if not isinstance(text, str) or not text:
            raise InvalidRequest(f"body.{name}: expected a text that is not empty, got {_shown(text)}")
        return 0

    return check


def _picture(body: dict[str, Any]) -> float:
    if not body.get("image"):
        raise InvalidRequest('body.image: expected a picture: a path, a data: URL, or {"data": BASE64}')
    return _text_of("prompt")(body)


def _recording(body: dict[str, Any]) -> float:
    if not body.get("file") and not body.get("url"):  # Groq reads an address in `url`
        raise InvalidRequest('body.file: expected a recording: a path, a data: URL, or {"data": BASE64}')
    return 0


def _longest(prompts: Any, where: str) -> float:
    """Returns the length of the longest prompt: characters, or tokens below zero. Raises InvalidRequest."""
    if isinstance(prompts, str):
        return len(prompts)
    if isinstance(prompts, dict):  # llama.cpp: a text with images
        return 0
    if not isinstance(prompts, list | tuple):
        raise InvalidRequest(f"{where}: expected a text or a list of texts, got {_shown(prompts)}")
    if not prompts:
        raise InvalidRequest(f"{where}: the list is empty. Next: put a text into it")
    if type(prompts[0]) is int:
        return -len(prompts)
    texts = max((len(text) for text in prompts if isinstance(text, str)), default=0)
    tokenised = max((len(ids) for ids in prompts if isinstance(ids, list | tuple)), default=0)
    return texts if texts else -tokenised


def _prompt_path(task: str) -> str:
    return {"chat": "body.messages", "completion": "body.prompt"}.get(task, "body.input")


def _number(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidRequest(f"body.{name}: expected a number, got {_shown(value)}")
    if isinstance(value, float) and not isfinite(value):
        raise InvalidRequest(f"body.{name}: {value} can't be written in JSON. Next: give a number, or leave it out")


def _whole(name: str, value: Any) -> None:
    if type(value) is not int:
        _number(name, value)
        if value != int(value):
            raise InvalidRequest(f"body.{name}: expected a whole number, got {value!r}")


def _count(name: str, value: Any) -> None:
    _whole(name, value)
    if value < 1:
        raise InvalidRequest(f"body.{name}: expected a whole number of at least 1, got {value!r}")


def _limit(name: str, value: Any) -> None:
    _whole(name, value)
    # 0: a completion that only echoes; -1: llama.cpp's and LM Studio's word for no limit.
    if value < -1:
        raise InvalidRequest(f"body.{name}: expected a whole number of tokens, at least 1, got {value!r}")


def _stop(name: str, value: Any) -> None:
    if not isinstance(value, str | list | tuple):
        raise InvalidRequest(f"body.{name}: expected a text or a list of texts, got {_shown(value)}")


def _list(name: str, value: Any) -> None:
    if not isinstance(value, list | tuple):
        raise InvalidRequest(f"body.{name}: expected a list, got {_shown(value)}")


_FIELDS: dict[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(("temperature", "top_p", "frequency_penalty", "presence_penalty"), _number),
    **dict.fromkeys(("n", "best_of"), _count),
    **dict.fromkeys(_LIMITS, _limit),
    "seed": _whole,
    "stop": _stop,
    "tools": _list,
}
"""The fields that mean the same everywhere. null is the same as an absent field."""
_SIZES: dict[str, Callable[[dict[str, Any]], float]] = {
    "completion": _completion,
    "embedding": _embedding,
    "rerank": _rerank,
    "response": _response,
    "moderation": _moderation,
    "image": _text_of("prompt"),
    "image-edit": _picture,
    "speech": _text_of("input"),
    "transcription": _recording,
    "audio-translation": _recording,
}
"""Task → a check of its required fields, which returns the length of a prompt that must fit a context."""


def _shown(value: Any) -> str:
    """Formats a value for an error: short, and without a user's text."""
    return repr(value) if isinstance(value, bool | int | float | None) else type(value).__name__


def layer(context: LayerContext) -> Layer | None:
    policy, model = context.policy, context.target.model
    if not policy.preflight.enabled:
        return None
    known = ["form of the body"]
    known += [f"tasks={','.join(model.tasks)}"] if model.tasks else []
    known += [f"context_length={model.context_length}"] if model.context_length else []
    known += ["rate_limit"] if policy.rate_limit.enabled and any(limits_of(policy.rate_limit)) else []
    arguments = {
        "target": context.target,
        "policy": policy,
        "primary": context.primary,
        "clock": context.resources.clock,
        "server_info": context.server_info,
    }
    return Layer(Preflight, arguments, " ".join(known))
