"""The base of client dialects whose wire counts a chat's input tokens, as the task `token-count`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from engine.core.errors import InvalidRequest
from engine.core.usage import Usage
from engine.dialects.client import Reply, WireCall
from engine.dialects.common.base import HttpDialect


class TokenCounter(HttpDialect, ABC):
    """A wire with a token counter, which is free of charge."""

    count_field: ClassVar[str]
    """The field of the counter's reply that has the count."""

    @abstractmethod
    def count_tokens(self, body: dict[str, Any], *, model: str, drop_unsupported: bool = False) -> WireCall:
        """Returns the call that counts a chat body's input tokens; `token_count` reads its reply.

        Ignores the fields that say how to answer. Raises InvalidRequest for what the wire can't count.
        """

    def token_count(self, status: int, headers: Mapping[str, str], content: bytes) -> int:
        """Returns the input tokens in the reply to `count_tokens`. Raises an InferenceError."""
        count = self.reply_object(status, headers, content).get(self.count_field)
        if type(count) is not int:
            raise self.error(status, headers, content)
        return count

    def _encode_count(self, body: dict[str, Any], model: str, stream: bool, drop_unsupported: bool) -> WireCall:
        """Returns the call of a `token-count`. Raises InvalidRequest."""
        if stream:
            raise InvalidRequest("task: a count can't be streamed")
        return self.count_tokens(body, model=model, drop_unsupported=drop_unsupported)

    def _decode_count(self, status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        """Returns the canonical reply to a `token-count`. Raises an InferenceError."""
        tokens = self.token_count(status, headers, content)
        return Reply({"object": "token-count", "model": "", "input_tokens": tokens}, Usage(), self.request_id(headers))
