"""Reads a provider's replies: strictly, then leniently, completed to the canonical form."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from engine.core import token_estimate
from engine.core.errors import Malformed
from engine.dialects.common.boundary import DEFECTS, odd_reply
from engine.dialects.common.json_body import mended
from engine.tasks import embedding, finite, rerank, tensors
from engine.tasks.usage import pieces

if TYPE_CHECKING:
    from engine.dialects.client import Dialect, Reply


class AnswerReader:
    """The replies of one target's dialect; `model` is the id that the target's calls name."""

    def __init__(self, dialect: Dialect, model: str) -> None:
        self._dialect = dialect
        self._model = model

    def read(self, task: str, body: dict[str, Any], status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        """Returns the canonical reply to a request with this body.

        JSON that is not strict is read leniently, with a warning; each status of success counts as 200. Raises an
        InferenceError.
        """
        try:
            return self._typed(task, body, 200 if is_success(status) else status, headers, content)
        except Malformed as error:
            found = mended(content)
            if found is not None:
                with suppress(Malformed):
                    answer = self._typed(task, body, 200, headers, found[0])
                    answer.warnings = tuple(f"the reply is not strict JSON: {change}" for change in found[1])
                    return answer
            if is_success(status) and status != 200:
                raise self._dialect.error(status, headers, content) from error
            raise

    def _typed(self, task: str, body: dict[str, Any], status: int, headers: Mapping[str, str], content: bytes) -> Reply:
        try:
            return self._complete(task, body, status, headers, content)
        except DEFECTS as error:
            raise odd_reply(error, status, headers, content) from error

    def _complete(
        self, task: str, body: dict[str, Any], status: int, headers: Mapping[str, str], content: bytes
    ) -> Reply:
        answer = self._dialect.decode(task, status, headers, content)
        if not answer.body.get("model"):
            # A server of one model does not name it.
            answer.body["model"] = body.get("model") or self._model
        if task == "embedding":
            embedding.check_order(answer.body, body.get("input"))
            finite.check_vectors(answer.body)
            if body.get("encoding_format") == "base64":
                embedding.pack(answer.body)
        elif task == "rerank":
            rerank.complete(answer.body, body, body.get("model") or self._model)
        elif task == "tensors" and body.get("encoding_format") == "base64":
            tensors.pack(answer.body)
        if answer.usage is not None:
            written = 0 if answer.usage.output_tokens else token_estimate.written_tokens(answer.body)
            answer.usage = token_estimate.completed(answer.usage, task, body, written)
        if answer.usage is None:
            answer.usage = pieces(task, body, answer.body)
        return answer


def is_success(status: int) -> bool:
    """Returns true for the statuses of a reply with an answer: some gateways send 201, as for a resource they made."""
    return 200 <= status < 300
