"""Requests of a table's rows: `prompt` of the run spec."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from engine.core.errors import ConfigError
from engine.schemas.prompt import PromptSpec
from engine.schemas.workload import WorkloadSpec
from engine.workloads.open import open_source
from engine.workloads.rows import Row

REVIEWS = [{"review": "Great tea, {{ 7*7 }}", "stars": 5}, {"review": "Bad", "stars": 1}]


def rows(path: Path, prompt: dict[str, Any], tasks: tuple[str, ...] = ("chat",), **fields: Any) -> list[Row]:
    kind = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet", ".txt": "txt"}[path.suffix]
    workload = TypeAdapter(WorkloadSpec).validate_python({"kind": kind, "path": str(path), **fields})
    return list(open_source(workload, tasks, prompt=PromptSpec.model_validate(prompt)))


def bodies(path: Path, prompt: dict[str, Any], tasks: tuple[str, ...] = ("chat",), **fields: Any) -> list[Any]:
    found = rows(path, prompt, tasks, **fields)
    assert [row.error for row in found] == [None] * len(found)
    return [row.request.body for row in found if row.request is not None]


def write(folder: Path, kind: str, table: list[dict[str, Any]]) -> Path:
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table), "utf-8")
    elif kind == "csv":
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(table), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_template_is_filled_from_columns_and_data_is_never_evaluated(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind, REVIEWS)
    found = bodies(path, {"system": "You judge tea.", "template": "Rate: {{ review }} ({{ stars }})"})
    assert [body["messages"] for body in found] == [
        [{"role": "system", "content": "You judge tea."}, {"role": "user", "content": f"Rate: {text} ({stars})"}]
        for text, stars in (("Great tea, {{ 7*7 }}", 5), ("Bad", 1))
    ]


def test_a_line_of_text_is_the_column_text(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("one\ntwo\n")
    found = bodies(tmp_path / "rows.txt", {"template": "Say {{ text }}"})
    assert [body["messages"][0]["content"] for body in found] == ["Say one", "Say two"]


def test_turns_examples_pictures_and_parameters(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl", [{"q": "What is it?", "photo": "cat.png", "first": "Hello"}])
    prompt = {
        "messages": [{"role": "user", "content": "{{ first }}"}, {"role": "assistant", "content": "Hi."}],
        "template": "{{ q }}",
        "image": "{{ photo }}",
        "parameters": {"temperature": 0, "max_tokens": 9},
    }
    (body,) = bodies(path, prompt, parameters={"max_tokens": 5})
    assert body["messages"] == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "cat.png"}},
            ],
        },
    ]
    assert (body["temperature"], body["max_tokens"]) == (0, 5)


@pytest.mark.parametrize(
    ("task", "prompt", "expected"),
    [
        ("embedding", {"template": "query: {{ a }}"}, {"input": "query: x"}),
        ("completion", {"template": "{{ a }}:"}, {"prompt": "x:"}),
        ("transcription", {"template": "{{ a }}"}, {"file": "x"}),
        ("rerank", {"template": "{{ a }}", "body": {"documents": "{{ many }}"}},
         {"query": "x", "documents": ["p", "q"]}),
        ("text-classification", {"body": {"inputs": "{{ a }}", "parameters": {"top_k": "{{ n }}"}}},
         {"inputs": "x", "parameters": {"top_k": 2}}),
    ],
)  # fmt: skip
def test_every_task_has_a_body(tmp_path: Path, task: str, prompt: dict[str, Any], expected: dict[str, Any]) -> None:
    path = write(tmp_path, "jsonl", [{"a": "x", "many": ["p", "q"], "n": 2}])
    assert bodies(path, prompt, (task,)) == [expected]


def test_conditions_loops_and_filters(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl", [{"tags": ["b", "a"], "name": None}, {"tags": [], "name": "n"}])
    template = "{% if tags %}{% for tag in tags|sort %}{{ tag|upper }};{% endfor %}{% else %}none{% endif %}{{ name }}"
    assert [body["messages"][0]["content"] for body in bodies(path, {"template": template})] == ["A;B;", "nonen"]


def test_ids_and_priorities_of_columns_hold(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", [{"custom_id": "r7", "priority": "high", "deadline_s": "20", "review": "Bad"}])
    (row,) = rows(path, {"template": "{{ review }}"})
    assert row.request is not None
    assert (row.id, row.request.priority, row.request.deadline_s) == ("r7", "high", 20)


def test_a_template_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "ask.txt").write_text("Rate: {{ review }}", "utf-8")
    path = write(tmp_path, "csv", REVIEWS)
    found = bodies(path, {"template": {"file": str(tmp_path / "ask.txt")}})
    assert found[1]["messages"][0]["content"] == "Rate: Bad"
    with pytest.raises(ConfigError, match=r"prompt\.system\.file: .*no\.txt can't be read"):
        bodies(path, {"system": {"file": str(tmp_path / "no.txt")}})


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_column_that_is_not_there_is_refused_before_anything_is_sent(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind, REVIEWS)
    with pytest.raises(ConfigError, match=r"got the column 'revew'; expected one of .*did you mean review\?"):
        rows(path, {"template": "{{ revew }}"})


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for a in range(99999999) %}x{% endfor %}", r"line 1: got a call"),
        ("{{ review.__class__.__mro__ }}", "has no attribute '__class__'"),
        ("{{ review.upper() }}", "got a call"),
        ("{% include 'x' %}", "got a include"),
        ("{{ review", "unexpected end of template"),
        ("{{ review|nofilter }}", "filters: abs, capitalize"),
        ("{{ 'x' * 999999999 }}", "is for small numbers"),
        ("{{ 9 ** 99999 }}", "is for small numbers"),
        ("{{ '%999999999d' % 1 }}", "is for small numbers"),
        ("{{ review|attr('x') }}", "No filter named 'attr'"),
    ],
)
def test_a_template_that_reaches_out_is_refused(tmp_path: Path, template: str, reason: str) -> None:
    path = write(tmp_path, "jsonl", REVIEWS)
    messages: list[str] = []
    try:
        messages += [row.error.message for row in rows(path, {"template": template}) if row.error is not None]
    except ConfigError as error:
        messages += [str(error)] * len(REVIEWS)
    assert len(messages) == len(REVIEWS)
    assert all("prompt.template: " in message and re.search(reason, message) for message in messages), messages


def test_a_row_without_a_key_is_a_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl", [{"a": "x"}, {"b": "y"}])
    good, bad = rows(path, {"template": "{{ a }}"})
    assert good.error is None
    assert bad.error is not None
    assert bad.error.message.endswith("prompt.template: 'a' is undefined")
    assert json.loads(bad.letter()) == {"b": "y"}


def test_a_system_prompt_of_another_task_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "jsonl", REVIEWS)
    with pytest.raises(ConfigError, match=r"prompt\.system: got one for the task embedding"):
        rows(path, {"system": "x", "template": "{{ review }}"}, ("embedding",))
