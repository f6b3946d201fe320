"""Makes requests of a table's rows: `prompt` of the run spec, in Jinja2's sandbox.

A template reads columns and keys of them, with a few filters. It calls no function, reaches for no attribute and can't
grow without a bound; `{{ }}` inside a cell is text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.core.errors import ConfigError, InvalidRequest, nearest
from engine.core.task_table import TASKS
from engine.schemas.prompt import PromptSpec, TextFile

LIMIT_CHARS = 64 * 1024 * 1024
"""The longest text that a template may make."""
FILTERS = (
    "abs", "capitalize", "count", "default", "d", "first", "float", "int", "join", "last", "length", "list", "lower",
    "max", "min", "replace", "reverse", "round", "sort", "string", "sum", "title", "tojson", "trim", "truncate",
    "unique", "upper", "wordcount",
)  # fmt: skip
"""Filters that take and give no more than their input, for the most part."""
_ROW = ("custom_id", "id", "task", "priority", "deadline_s", "metadata")
"""Columns that mean the same in every row, with a template, too."""
_FORBIDDEN = (nodes.Call, nodes.CallBlock, nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends, nodes.Macro)
_BINARY = ("*", "**", "%")


class _Environment(ImmutableSandboxedEnvironment):
    """Keys of mappings are read; attributes of objects are not."""

    intercepted_binops = frozenset(_BINARY)

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True, finalize=_shown)
        self.globals.clear()
        self.filters = {name: self.filters[name] for name in FILTERS}

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Mapping | list | tuple | str):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                return self.undefined(obj=obj, name=argument)
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = all(isinstance(each, int | float) for each in (left, right))
        if not numbers or (operator == "**" and abs(right) > 64):
            raise SecurityError(f"{operator} is for small numbers here")
        return super().call_binop(context, operator, left, right)


def _shown(value: Any) -> Any:
    """Returns an empty text for an empty cell."""
    return "" if value is None else value


class Prompt:
    """A prompt, compiled for the rows of one workload. Raises ConfigError for a template that is not allowed."""

    def __init__(self, spec: PromptSpec, task: str) -> None:
        self._environment = _Environment()
        self._task = task
        self.columns: set[str] = set()
        """The columns that its templates read."""
        self._system = self._text("prompt.system", spec.system)
        self._template = self._text("prompt.template", spec.template)
        self._messages = [self._tree(f"prompt.messages[{index}]", each) for index, each in enumerate(spec.messages)]
        self._media = [
            (kind, field, self._text(f"prompt.{name}", value))
            for name, kind, field, value in (
                ("image", "image_url", "url", spec.image), ("audio", "input_audio", "data", spec.audio),
            )
            if value is not None
        ]  # fmt: skip
        self._body = self._tree("prompt.body", spec.body)
        for name, value in (("system", spec.system), ("messages", spec.messages), ("image", spec.image)):
            if value and task != "chat":
                raise ConfigError(f"prompt.{name}: got one for the task {task}; expected none. Fix: use prompt.body")

    def check(self, columns: Iterable[str], source: str) -> None:
        """Raises ConfigError for a column that the source does not have."""
        known = list(columns)
        for name in sorted(self.columns.difference(known)):
            listed = ", ".join(known[:12])
            raise ConfigError(
                f"prompt: got the column {name!r}; expected one of {source}: {listed}. Fix: {nearest(name, known)}"
            )

    def row(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a row with its body. Raises InvalidRequest."""
        body: dict[str, Any] = {}
        if self._task == "chat":
            body["messages"] = self._chat(cells)
        elif self._template is not None:
            body[TASKS[self._task].field] = self._render(self._template, cells)
        body |= self._filled(self._body, cells)
        return {**{name: cells[name] for name in _ROW if cells.get(name) not in (None, "")}, "body": body}

    def _chat(self, cells: Mapping[str, Any]) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if self._system is not None:
            messages.append({"role": "system", "content": self._render(self._system, cells)})
        messages += [self._filled(each, cells) for each in self._messages]
        if self._template is not None or self._media:
            text = self._render(self._template, cells) if self._template is not None else ""
            parts = [
                {"type": kind, kind: {field: self._render(template, cells)}} for kind, field, template in self._media
            ]
            content: Any = [*([{"type": "text", "text": text}] if text else []), *parts] if parts else text
            messages.append({"role": "user", "content": content})
        return messages

    def _text(self, where: str, value: str | TextFile | None) -> Any:
        if value is None:
            return None
        text = _read(where, value) if isinstance(value, TextFile) else value
        try:
            tree = self._environment.parse(text)
            for node in tree.find_all(_FORBIDDEN):
                raise ConfigError(
                    f"{where}: line {node.lineno}: got a {type(node).__name__.lower()}; expected columns, filters, if "
                    "and for. Fix: prepare such values in a column"
                )
            self.columns |= find_undeclared_variables(tree)
            return where, self._environment.from_string(text)
        except TemplateError as error:
            raise ConfigError(f"{where}: {error}{_filters(error)}") from error

    def _tree(self, where: str, value: Any) -> Any:
        """Compiles the texts of a nested value; a text that is one expression is compiled as that."""
        if isinstance(value, dict):
            return {name: self._tree(f"{where}.{name}", each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self._tree(f"{where}[{index}]", each) for index, each in enumerate(value)]
        if not isinstance(value, str) or "{" not in value:
            return value
        named, template = self._text(where, value)
        (output, *others) = self._environment.parse(value).body or (None,)
        if others or not isinstance(output, nodes.Output) or len(output.nodes) != 1:
            return _Text(named, template)
        if isinstance(output.nodes[0], nodes.TemplateData):
            return value
        inner = value.strip()[2:-2]
        return _Value(named, self._environment.compile_expression(inner, undefined_to_none=False))

    def _filled(self, value: Any, cells: Mapping[str, Any]) -> Any:
        if isinstance(value, dict):
            return {name: self._filled(each, cells) for name, each in value.items()}
        if isinstance(value, list):
            return [self._filled(each, cells) for each in value]
        if isinstance(value, _Text):
            return self._render((value.where, value.template), cells)
        if isinstance(value, _Value):
            try:
                found = value.expression(**cells)
                if isinstance(found, StrictUndefined):
                    str(found)  # raises, with the name
                return found
            except (TemplateError, ArithmeticError, TypeError, ValueError) as error:
                raise InvalidRequest(f"{value.where}: {error}") from error
        return value

    def _render(self, template: tuple[str, Any], cells: Mapping[str, Any]) -> str:
        where, compiled = template
        pieces: list[str] = []
        size = 0
        try:
            for piece in compiled.generate(cells):
                size += len(piece)
                if size > LIMIT_CHARS:
                    raise InvalidRequest(f"{where}: got more than {LIMIT_CHARS} characters; split the row")
                pieces.append(piece)
        except (TemplateError, ArithmeticError, TypeError, ValueError) as error:
            raise InvalidRequest(f"{where}: {error}") from error
        return "".join(pieces)


class _Text:
    """A template inside a nested value."""

    __slots__ = ("template", "where")

    def __init__(self, where: str, template: Any) -> None:
        self.where, self.template = where, template


class _Value:
    """An expression that is a whole value, whose type it keeps."""

    __slots__ = ("expression", "where")

    def __init__(self, where: str, expression: Any) -> None:
        self.where, self.expression = where, expression


def _read(where: str, text: TextFile) -> str:
    try:
        return Path(text.file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}.file: {text.file} can't be read: {error}") from error


def _filters(error: TemplateError) -> str:
    return f"; filters: {', '.join(FILTERS)}" if "filter" in str(error) else ""


def prompt_of(spec: PromptSpec | None, task: str) -> Prompt | None:
    """Returns the compiled prompt; None if rows are requests already. Raises ConfigError."""
    empty = PromptSpec()
    if spec is None or spec.model_copy(update={"parameters": {}}) == empty:
        return None
    return Prompt(spec, task)
