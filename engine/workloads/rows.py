"""The forms of a row, and its way to a request.

- an OpenAI batch line: `{custom_id, method, url, body}`
- a short form: one of `prompt`, `messages`, `input`, `file`, `inputs`, with any field of the body next to it; `image`
  and `prompt` together request an edit
- a line of text
- `{custom_id, raw}` or `{custom_id, raw_base64}`: a line that could not be read, as a dead letter keeps it; read again

Every form takes `custom_id` (or `id`), `task`, `priority`, `deadline_s` and `metadata`.
"""

from __future__ import annotations

import base64
import math
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from engine.core.errors import InvalidRequest, nearest
from engine.core.lenient_json import BELOW, MOST_DEPTH, read_again
from engine.core.request import Request
from engine.core.task_table import ENDPOINTS, TASKS, having
from engine.workloads.lines import LINE_LIMIT_BYTES, LongLine
from engine.workloads.prompt import Prompt

ROW_FIELDS = frozenset({"custom_id", "id", "task", "priority", "deadline_s", "metadata", "method", "url", "body"})
"""Fields of a row that are not fields of its body."""

TEXT_FIELDS = {task: record.field for task, record in TASKS.items()}
"""The field of a body that a task can't do without."""

_SHORT = ("prompt", "messages", "input", "file", "inputs")
_RECORDINGS = [task for task, files in having("files").items() if files == ("file",)]
_TASKS: dict[str, str] = {path.removeprefix("/v1/"): task for task, path in ENDPOINTS.items()}
_ID = re.compile(r'"custom_id"\s*:\s*("(?:[^"\\]|\\.){0,512}"|-?[0-9]{1,30}(?![0-9.eE]))')
"""An id in a line that is not JSON."""
_encode = msgspec.json.encode
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class Form:
    """The reading of rows: the workload's values for rows that have none of their own."""

    task: str = "chat"
    stated: bool = False
    """The workload names the task; else it is the model's first one."""
    parameters: dict[str, Any] = field(default_factory=dict)
    prompt: Prompt | None = None
    """Makes a request of a row's columns; None: rows are requests already."""
    cells: bool = False
    """Rows are read as the source has them, to be shown, not sent."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row as its source found it."""

    line: int
    data: bytes | str | dict[str, Any]
    """bytes: a line of JSON; str: a line of text; dict: an object."""
    problem: str | None = None
    """The reason why the source itself could not read it."""


@dataclass(slots=True)
class Row:
    """One row: a request, or the error that replaces it. `index` counts from 0 and is its identity."""

    index: int
    id: str
    """custom_id, else row-1, row-2, …; need not be unique."""
    request: Request | None
    error: InvalidRequest | None
    raw: bytes | str | dict[str, Any]
    """bytes: the JSON object as it was written; dict: the object; str: the text of a line that is not an object."""
    at_s: float | None = None
    """The time of its arrival, in seconds from the start; None: as soon as there is room for it."""
    warnings: tuple[str, ...] = ()
    """Changes that made its line strict JSON."""

    def letter(self) -> bytes:
        """Returns the row as one line of JSON that is valid input again, without any loss."""
        if isinstance(self.raw, bytes):
            return self.raw
        if isinstance(self.raw, str):
            return _encode({"custom_id": self.id, "raw": self.raw})
        return _encode(self.raw)


def row_of(index: int, source: str, record: Record, form: Form) -> Row:
    """Returns the row of a record; never raises: an invalid row carries its error."""
    where = f"{source}:{record.line}"
    data = record.data
    if record.problem is not None:
        return _broken(index, data, InvalidRequest(f"{where}: {record.problem}"))
    if isinstance(data, LongLine):
        limit = LINE_LIMIT_BYTES // (1024 * 1024)
        error = InvalidRequest(f"{where}: {data.size_bytes} bytes in one line, at most {limit} MiB; split the row")
        return _broken(index, data.decode("utf-8", "replace"), error)
    if isinstance(data, bytes):
        return _row_of_line(index, where, data, form)
    if isinstance(data, str):
        data = _object_of_text(data, form)
    return _row_of_object(index, where, data, form, data)


def letter_of(record: Record, form: Form) -> bytes | None:
    """Returns the letter of a valid row at a fraction of the cost of reading it; None: the row must be read."""
    data = record.data
    if record.problem is not None or isinstance(data, LongLine):
        return None
    if isinstance(data, bytes):
        return data.strip()
    return _encode(_object_of_text(data, form) if isinstance(data, str) else data)


def _object_of_text(text: str, form: Form) -> dict[str, Any]:
    if form.prompt is not None:
        return {"text": text}
    return {"input" if form.task == "embedding" else "prompt": text}


def _row_of_line(index: int, where: str, line: bytes, form: Form, custom_id: str | None = None) -> Row:
    line = line.strip()
    changes: list[str] = []
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{where}: not UTF-8 at byte {error.start + 1}; save the file as UTF-8"
        return _broken(index, line, InvalidRequest(message), custom_id)
    try:
        value = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        try:
            value, changes = read_again(line, behind=False)
        except ValueError as problem:
            reason = problem if isinstance(error, RecursionError) or "behind" in str(problem) else error
            message = f"{where}: not valid JSON: {reason}; each line must be one JSON object"
            return _broken(index, text, InvalidRequest(message), custom_id)
        if BELOW in changes:
            message = f"{where}: nested deeper than {MOST_DEPTH} levels; flatten the row"
            return _broken(index, text, InvalidRequest(message), custom_id)
    if not isinstance(value, dict):
        message = f'{where}: expected a JSON object, got {_type(value)}; write {{"prompt": …}} or an OpenAI batch line'
        return _broken(index, text, InvalidRequest(message), custom_id)
    row = _row_of_object(index, where, value, form, line, custom_id)
    if changes:
        row.warnings = (*row.warnings, *(f"the row is not strict JSON: {change}" for change in changes))
    return row


def _broken(index: int, data: bytes | str | dict[str, Any], error: InvalidRequest, custom_id: str | None = None) -> Row:
    id = custom_id or _id_in(data) or f"row-{index + 1}"
    if isinstance(data, bytes):
        data = {"custom_id": id, "raw_base64": base64.b64encode(data).decode("ascii")}
    return Row(index, id, None, error, data)


def _row_of_object(
    index: int, where: str, value: dict[str, Any], form: Form, raw: bytes | dict[str, Any], custom_id: str | None = None
) -> Row:
    id = custom_id or f"row-{index + 1}"
    try:
        id = _id_of(value) or id
        again = _line_of(value)
        if again is None:
            made = value if form.prompt is None else form.prompt.row(value)
            return Row(index, id, _request_of(made, form, id), None, raw)
    except InvalidRequest as error:
        return Row(index, id, None, InvalidRequest(f"{where}: {error.message}"), raw)
    row = _row_of_line(index, where, again, form, id)
    row.raw = raw
    return row


def _id_in(data: bytes | str | dict[str, Any]) -> str | None:
    """Returns the id in a line that is not JSON; None if no id can be read."""
    if isinstance(data, dict):
        return None
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    found = _ID.search(text)
    if found is None:
        return None
    try:
        id = read_again(found[1].encode("utf-8", "replace"))[0]
    except ValueError:
        return None
    return str(id) or None


def _id_of(value: dict[str, Any]) -> str | None:
    for name in ("custom_id", "id"):
        given = value.get(name)
        if given is None or given == "":
            continue
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise InvalidRequest(f"{name}: expected text, got {_type(given)}")
        return str(given)
    return None


def _line_of(value: dict[str, Any]) -> bytes | None:
    """Returns the broken line inside a dead letter; None if it is not a dead letter."""
    if not value.keys() <= {"custom_id", "raw", "raw_base64"}:
        return None
    if isinstance(value.get("raw"), str):
        return bytes(value["raw"], "utf-8")
    if isinstance(value.get("raw_base64"), str):
        try:
            return base64.b64decode(value["raw_base64"], validate=True)
        except ValueError as error:
            raise InvalidRequest(f"raw_base64: {error}") from error
    return None


def _request_of(value: dict[str, Any], form: Form, id: str) -> Request:
    task, body = _batch_form(value, form) if "body" in value or "url" in value else _short_form(value, form)
    if form.parameters:
        body = {**form.parameters, **body}
    needed = TEXT_FIELDS.get(task)
    if needed is not None and not body.get(needed) and not body.get(TASKS[task].stands_in or needed):
        raise InvalidRequest(f"body: the task {task} needs {needed}, which is missing or empty")
    deadline_s = value.get("deadline_s")
    if deadline_s is not None and (
        isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float) or not math.isfinite(deadline_s)
    ):
        raise InvalidRequest(f"deadline_s: expected a number of seconds, got {deadline_s!r}")
    priority = value.get("priority")
    if priority is None:
        priority = "normal"
    if not isinstance(priority, str):
        raise InvalidRequest(f"priority: expected high, normal or low, got {_type(priority)}")
    metadata = value.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise InvalidRequest(f"metadata: expected an object, got {_type(metadata)}")
    return Request(
        task=task,
        body=body,
        id=id,
        priority=priority,
        deadline_s=deadline_s,
        metadata=metadata or {},
    )


def _batch_form(value: dict[str, Any], form: Form) -> tuple[str, dict[str, Any]]:
    method = value.get("method")
    if method is not None and (not isinstance(method, str) or method.upper() != "POST"):
        raise InvalidRequest(f"method: expected POST, got {method!r}")
    body = value.get("body")
    if not isinstance(body, dict):
        raise InvalidRequest(f"body: expected an object, got {_type(body)}")
    strange = value.keys() - ROW_FIELDS
    if strange:
        name = min(strange)
        raise InvalidRequest(f"{name}: not a field of a batch line; put it into body, or {nearest(name, ROW_FIELDS)}")
    task, url = _stated_task(value), value.get("url")
    if url is not None:
        of_url = _task_of_url(url)
        if task is not None and task != of_url:
            raise InvalidRequest(f"task: {task} does not fit the url {url}; leave one of them out")
        task = of_url
    return task or form.task, body


def _task_of_url(url: Any) -> str:
    if not isinstance(url, str):
        raise InvalidRequest(f"url: expected text, got {_type(url)}")
    path = url.split("?")[0].strip("/").removeprefix("v1/")
    if path not in _TASKS:
        raise InvalidRequest(f"url: {url!r} is not known; {nearest(url, ENDPOINTS.values())}")
    return _TASKS[path]


def _short_form(value: dict[str, Any], form: Form) -> tuple[str, dict[str, Any]]:
    given = [name for name in _SHORT if value.get(name) is not None]
    if given == ["prompt", "file"] or (given == ["prompt"] and value.get("image") is not None):
        given.remove("prompt")  # guides a transcription, or describes the edit of an image
    if len(given) > 1 or (not given and value.get("image") is None):
        found = " and ".join(given) if given else (", ".join(sorted(value)[:6]) or "nothing")
        raise InvalidRequest(f"expected one of prompt, messages, input, file, inputs, or an OpenAI body; found {found}")
    name = given[0] if given else "image"
    task = _stated_task(value) or _task_of_short(name, value[name], form)
    body = {key: item for key, item in value.items() if key not in ROW_FIELDS and key != name}
    if name in ("file", "inputs", "image"):
        wanted = TEXT_FIELDS.get(task, name)
        if wanted != name and (name, task) != ("image", "image-edit"):
            raise InvalidRequest(
                f"{name}: the task {task} takes {wanted}; name another task in the row or in workload.task"
            )
        return task, {**body, name: value[name]}
    body.update(_text(task, name, value[name]))
    return task, body


def _task_of_short(name: str, content: Any, form: Form) -> str:
    """Returns the task of a row that does not name it."""
    if name == "messages":
        return "chat"
    if name == "prompt":
        return "completion" if isinstance(content, list) else form.task
    if name == "file":
        return form.task if form.stated or form.task in _RECORDINGS else "transcription"
    if name == "image":
        return form.task if form.stated else "image-edit"
    if name == "inputs" and TEXT_FIELDS[form.task] != "inputs":
        raise InvalidRequest("inputs: got no task; expected one in the row (task) or in workload.task")
    return "embedding" if name == "input" and not form.stated else form.task


def _text(task: str, name: str, content: Any) -> dict[str, Any]:
    """Returns the body field with the row's text for this task."""
    wanted = TEXT_FIELDS.get(task, name)
    if name == "messages":
        if wanted != "messages":
            raise InvalidRequest(f"messages: the task {task} takes {wanted}")
        if not isinstance(content, list) or not all(isinstance(message, dict) for message in content):
            raise InvalidRequest('messages: expected an array of objects such as {"role": "user", "content": …}')
        return {"messages": content}
    if isinstance(content, str):
        return {wanted: [{"role": "user", "content": content}] if wanted == "messages" and content else content}
    if isinstance(content, list) and wanted == name:
        return {wanted: content}
    raise InvalidRequest(f"{name}: expected text, got {_type(content)}")


def _stated_task(value: dict[str, Any]) -> str | None:
    task = value.get("task")
    if task is not None and not isinstance(task, str):
        raise InvalidRequest(f"task: expected text, got {_type(task)}")
    return task


def _type(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
