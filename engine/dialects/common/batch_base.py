"""The base of batch dialects: a wire states its paths, and how it shows a job."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from engine.core.errors import InferenceError
from engine.dialects.batch import Heard, JobView, object_of
from engine.dialects.client import Dialect


class HttpBatchDialect(ABC):
    """A batch API whose jobs are JSON objects. `live` is the dialect of the same provider's live calls."""

    lists_nothing: ClassVar[bool] = False
    """A list without jobs has no field for them."""

    def __init__(self, dialect: Dialect) -> None:
        self.live = dialect

    def view(self, heard: Heard) -> JobView:
        return self._view(object_of(heard, self.live), heard)

    def _views(self, heard: Heard, field: str) -> tuple[list[JobView], dict[str, Any]]:
        """Returns the jobs in a list's `field`, and the whole reply. Raises InferenceError."""
        body = object_of(heard, self.live)
        entries = body.get(field, [] if self.lists_nothing else None)
        if type(entries) is not list:
            raise self._unreadable(heard)
        return [self._view(entry, heard) for entry in entries if type(entry) is dict], dict(body)

    def _unreadable(self, heard: Heard) -> InferenceError:
        """Returns the error of a reply that does not have the documented form."""
        return self.live.error(heard.status, heard.headers, heard.content)

    @abstractmethod
    def _view(self, body: Mapping[str, Any], heard: Heard) -> JobView:
        """Returns a job as the provider shows it. Raises InferenceError."""
