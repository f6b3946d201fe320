"""Group `prompt`: the request that each row becomes."""

from typing import Any

from engine.schemas.base import Spec


class TextFile(Spec):
    """A text in a file of its own."""

    file: str
    """Its path, UTF-8; relative to the working directory."""


class PromptSpec(Spec):
    """The request that is made of a row. Texts are Jinja2 templates over the row's columns, such as
    `Rate this review: {{ review }}`; without any of them, rows are requests already."""

    system: str | TextFile | None = None
    """The system prompt of a chat."""
    template: str | TextFile | None = None
    """The user's message of a chat; the text of any other task."""
    messages: tuple[dict[str, Any], ...] = ()
    """Messages of a chat before that one, for several turns and for examples: {role, content}."""
    image: str | None = None
    """An image next to the text: the path, URL or base64 in a column, `{{ photo }}`."""
    audio: str | None = None
    """An audio next to the text, as `image`."""
    body: dict[str, Any] = {}
    """Further fields of the body, such as `{documents: "{{ documents }}"}` of a rerank. A value that is one expression
    keeps the column's type."""
    parameters: dict[str, Any] = {}
    """Body fields that are the same for every row, such as temperature; those of the row come first."""


__all__ = ["PromptSpec", "TextFile"]
