"""Prompts for a generator: by transformers' tokenizers and processors, or by OpenVINO GenAI's tokenizer."""

from __future__ import annotations

from typing import Any, Protocol

from engine.core.errors import Internal
from engine.runtimes.generation import vision_chat

INLINE_CHARACTERS = 4000
"""A longer text is tokenised on a thread; a shorter one costs less than the way there."""


class Prompt:
    """A prompt's tokens, in the form that its generator reads."""

    __slots__ = ("extras", "length", "tokens")

    def __init__(self, tokens: Any, length: int, extras: dict[str, Any] | None = None) -> None:
        self.tokens = tokens
        self.length = length
        self.extras = extras
        """What the generator takes besides, such as the tensors of pictures."""

    def __len__(self) -> int:
        return self.length


class Prompts(Protocol):
    """Makes prompts; every call blocks."""

    def of_text(self, text: str) -> Prompt:
        """The text's tokens as they are."""
        ...

    def of_chat(self, messages: list[dict[str, Any]]) -> Prompt:
        """By the model's own chat template. Raises Internal without one."""
        ...


class GenAiPrompts:
    """Tensors of shape (1, length)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def of_text(self, text: str) -> Prompt:
        ids = self._tokenizer.encode(text, add_special_tokens=False).input_ids
        return Prompt(ids, int(ids.shape[1]))

    def of_chat(self, messages: list[dict[str, Any]]) -> Prompt:
        return self.of_text(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True))


class HubPrompts:
    """Lists of tokens. `name` is the model's, for what is said of it."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name

    def of_text(self, text: str) -> Prompt:
        ids = self._tokenizer(text, add_special_tokens=False).input_ids
        return Prompt(ids, len(ids))

    def of_chat(self, messages: list[dict[str, Any]]) -> Prompt:
        if not self._tokenizer.chat_template:
            raise Internal(f"the model {self._name!r} has no chat template; ask it for a completion")
        return self.of_text(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


class VisualPrompts(HubPrompts):
    """Lists of tokens, with the tensors of the chat's pictures as `dtype`."""

    def __init__(self, processor: Any, name: str, dtype: Any) -> None:
        super().__init__(processor.tokenizer, name)
        self._processor = processor
        self._dtype = dtype

    def of_chat(self, messages: list[dict[str, Any]]) -> Prompt:
        ids, extras = vision_chat.encode(self._processor, messages, self._dtype)
        return Prompt(ids, len(ids), extras)
