"""Renders a model's chat template, for tokenizers other than transformers'.

The environment is that of transformers ("Chat templates" in its documentation): a sandbox, with `raise_exception`,
`strftime_now` and a `tojson` that keeps its characters.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.core.errors import InvalidRequest


class ChatTemplate:
    """A compiled chat template. Raises TemplateError for one that can't be compiled."""

    def __init__(self, source: str, special: dict[str, str]) -> None:
        """`special`: the special tokens that it may name, such as `bos_token`."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _json
        environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
        self._template = environment.from_string(source)
        self._special = special

    def render(self, messages: list[dict[str, Any]]) -> str:
        """Returns the prompt. Raises InvalidRequest for messages that the template refuses."""
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, **self._special)
        except TemplateError as error:
            raise refused(messages, error) from error


def refused(messages: list[dict[str, Any]], error: Exception) -> InvalidRequest:
    """Returns the error for messages that a chat template refuses, in the template's words."""
    text = " ".join(str(error).split()) or type(error).__name__
    where = "body.messages"
    if "system" in text.lower():
        system = next((index for index, each in enumerate(messages) if each.get("role") == "system"), None)
        where = where if system is None else f"{where}[{system}].role"
    return InvalidRequest(f"{where}: this model's chat template: {text}")


def missing(name: str) -> InvalidRequest:
    """Returns the error for a chat with a model without a template."""
    return InvalidRequest(f"task: got chat; expected completion, for {name} has no chat template. Fix: send `prompt`")


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
