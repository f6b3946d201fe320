"""Prompts for a generator: by transformers' tokenizers and processors, or by OpenVINO GenAI's tokenizer."""

from __future__ import annotations

from typing import Any, Protocol

from jinja2 import TemplateError

from engine.core.errors import InvalidRequest
from engine.runtimes.generation import vision_chat
from engine.runtimes.generation.chat_template import ChatTemplate, missing, refused

INLINE_CHARACTERS = 4000
"""A longer text is tokenised on a thread; for a shorter one the hand-over would cost more."""


class Prompt:
    """A prompt's tokens, in the form that its generator reads."""

    __slots__ = ("extras", "length", "tokens")

    def __init__(self, tokens: Any, length: int, extras: dict[str, Any] | None = None) -> None:
        self.tokens = tokens
        self.length = length
        self.extras = extras
        """Further inputs of the generator, such as the tensors of images."""

    def __len__(self) -> int:
        return self.length


class Prompts(Protocol):
    """Makes prompts; every call blocks."""

    def of_text(self, text: str) -> Prompt:
        """Returns the text's tokens, without a template."""
        ...

    def of_chat(self, messages: list[dict[str, Any]]) -> Prompt:
        """Renders the model's own chat template. Raises InvalidRequest without one, and for messages that it
        refuses."""
        ...


class GenAiPrompts:
    """Tensors of shape (1, length)."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name
        special = {"bos_token": tokenizer.get_bos_token(), "eos_token": tokenizer.get_eos_token()}
        self._template: ChatTemplate | None = None
        if tokenizer.chat_template:
            try:
                self._template = ChatTemplate(tokenizer.chat_template, special)
            except TemplateError:
                self._template = None  # OpenVINO GenAI may still read it

    def of_text(self, text: str) -> Prompt:
        ids = self._tokenizer.encode(text, add_special_tokens=False).input_ids
        return Prompt(ids, int(ids.shape[1]))

    def of_chat(self, messages: list[dict[str, Any]]) -> Prompt:
        if not self._tokenizer.chat_template:
            raise missing(self._name)
        if self._template is not None:
            return self.of_text(self._template.render(messages))
        try:
            return self.of_text(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True))
        except RuntimeError as error:
            last = str(error).strip().splitlines()[-1:] or ["it can't be rendered"]
            raise InvalidRequest(f"body.messages: this model's chat template: {last[0]}") from error


class HubPrompts:
    """Makes lists of tokens. `name` is the model's, for errors."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name

    def of_text(self, text: str) -> Prompt:
        ids = self._tokenizer(text, add_special_tokens=False).input_ids
        return Prompt(ids, len(ids))

    def of_chat(self, messages: list[dict[str, Any]]) -> Prompt:
        if not self._tokenizer.chat_template:
            raise missing(self._name)
        try:
            prompt = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except TemplateError as error:
            raise refused(messages, error) from error
        return self.of_text(prompt)


class VisualPrompts(HubPrompts):
    """Makes lists of tokens, with the tensors of the chat's images as `dtype`."""

    def __init__(self, processor: Any, name: str, dtype: Any) -> None:
        super().__init__(processor.tokenizer, name)
        self._processor = processor
        self._dtype = dtype

    def of_chat(self, messages: list[dict[str, Any]]) -> Prompt:
        ids, extras = vision_chat.encode(self._processor, messages, self._dtype)
        return Prompt(ids, len(ids), extras)
