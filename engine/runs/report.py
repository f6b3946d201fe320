"""report.md and report.html: the same findings for a terminal and for a browser."""

from __future__ import annotations

import itertools
import logging
import shlex
from typing import Any

import msgspec

from engine.batches.ledger import jobs_of
from engine.core.atomic_file import write_atomic
from engine.core.errors import OutputError
from engine.core.printable import one_line
from engine.core.resources import Resources
from engine.runs.directory import RunDirectory
from engine.runs.journal import entries
from engine.runs.report_format import FILTERS, chart, clip, groups, roles, stage_rows
from engine.telemetry.gauges import stages
from engine.telemetry.metrics import Metrics
from engine.workloads.open import Source

_SHOWN = 10

log = logging.getLogger("engine.runs")


class Findings:
    """A run's findings: the metrics, the first rows of either kind, and the state of the stages."""

    def __init__(self, resources: Resources | None = None) -> None:
        """`resources` of the engine that served the run; None without an engine."""
        self.metrics = Metrics()
        self.stages = stages(resources) if resources is not None else {}
        self.failures: list[dict[str, Any]] = []
        self.sample: list[tuple[int, dict[str, Any]]] = []
        self.unreadable = 0
        """Lines that can't be read; only whether their row was answered is counted."""
        self._seen = 0

    def see(self, line: bytes, ok: bool) -> None:
        """Counts a line of results.jsonl, `ok` if its row was answered."""
        row, self._seen = self._seen, self._seen + 1
        try:
            self.metrics.add_line(line)
            if ok and len(self.sample) < _SHOWN:
                self.sample.append((row, msgspec.json.decode(line)))
            elif not ok and len(self.failures) < _SHOWN:
                self.failures.append(msgspec.json.decode(line))
        except (msgspec.DecodeError, RecursionError) as error:
            log.warning("row %d: its record can't be read, it counts as unknown: %s", row + 1, error)
            self.unreadable += 1
            self.metrics.add_unreadable(ok)

    def summary(self, wall_s: float | None) -> dict[str, Any]:
        """Returns the content of metrics.json: the metrics, with rates over `wall_s`, and the stages."""
        summary = {**self.metrics.summary(wall_s), "stages": self.stages}
        return {**summary, "unreadable": self.unreadable} if self.unreadable else summary

    def first_errors(self, count: int = 3) -> list[str]:
        """Returns one line each, without repeats."""
        told: dict[tuple[str, str], str] = {}
        for record in self.failures:
            told.setdefault((record["error"]["kind"], record["error"]["message"]), _failure(record))
        return list(told.values())[:count]


def rewrite_report(run: RunDirectory, source: Source | None) -> None:
    """Makes the report again from the journal. `source`: None when the workload is gone. Raises OutputError."""
    findings = Findings()
    for entry in entries(run.journal):
        findings.see(entry.payload.partition(b"\n")[0], entry.ok)
    findings.stages = _known_stages(run)
    write_report(run, findings, source)


def _known_stages(run: RunDirectory) -> dict[str, list[dict[str, str | float]]]:
    """Returns the stages from metrics.json, which the journal does not have. Raises OutputError."""
    try:
        known: dict[str, Any] = msgspec.json.decode(run.metrics.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise OutputError(f"{run.metrics} can't be read: {error}; delete it to make the report without it") from error
    found: dict[str, list[dict[str, str | float]]] = known.get("stages", {})
    return found


def write_report(run: RunDirectory, findings: Findings, source: Source | None) -> None:
    """Writes both files. Raises OutputError."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("engine.runs"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    data = _data(run, findings, source)
    for path, template in ((run.report_md, "report.md.j2"), (run.report_html, "report.html.j2")):
        write_atomic(path, environment.get_template(template).render(data).encode("utf-8"))


def _data(run: RunDirectory, findings: Findings, source: Source | None) -> dict[str, Any]:
    manifest = run.manifest
    try:
        spec = (run.path / "spec.yaml").read_text("utf-8")
    except OSError as error:
        raise OutputError(f"{run.path / 'spec.yaml'} can't be read: {error.strerror}") from error
    prompts = _prompts(source, {index for index, _ in findings.sample})
    metrics = findings.summary(manifest.wall_s or None)
    return {
        "manifest": manifest,
        "metrics": metrics,
        "groups": groups(metrics),
        "roles": roles(metrics),
        "chart": chart(findings.metrics.total.latency),
        "stages": stage_rows(findings.stages),
        "jobs": jobs_of(run.journal),
        "failures": [{"custom_id": record["custom_id"], **record["error"]} for record in findings.failures],
        "sample": [
            {"custom_id": record["custom_id"], "prompt": prompts.get(index), "answer": _answer(record)}
            for index, record in findings.sample
        ],
        "spec": spec,
        "resume": run.resume_command,
        "rerun": shlex.join(["python", "-m", "engine", *manifest.overrides]),
    }


def _prompts(source: Source | None, indices: set[int]) -> dict[int, str]:
    """Returns the prompts of the shown rows, read again from the workload."""
    if source is None or source.live or not indices:
        return {}
    found = {}
    for row in itertools.islice(source, max(indices) + 1):
        if row.index in indices and row.request is not None:
            found[row.index] = _question(row.request.body)
    return found


def _question(body: dict[str, Any]) -> str:
    """Returns the text of a request's last message or input; a row may hold any JSON there."""
    messages = body.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        content = messages[-1].get("content")
        if isinstance(content, list):
            parts = [str(part.get("text") or f"[{part.get('type')}]") for part in content if isinstance(part, dict)]
            return clip("\n".join(parts))
        return clip(str(content))
    text = body.get("prompt", body.get("input"))
    if isinstance(text, list) and text:
        return clip(f"{text[0]} … ({len(text)} texts)" if len(text) > 1 else str(text[0]))
    return clip(str(text))


def _answer(record: dict[str, Any]) -> str:
    """Returns the text of a reply; a reply of an unknown form is shown as JSON."""
    body = _fields(_fields(record.get("response")).get("body"))
    choice, item = _first(body.get("choices")), _first(body.get("data"))
    if choice:
        message = _fields(choice.get("message"))
        text = message.get("content") or choice.get("text")
        if text is None and message.get("tool_calls"):
            text = msgspec.json.encode(message["tool_calls"]).decode()
        return clip(str(text or ""))
    vector = item.get("embedding")
    if isinstance(vector, list):
        first = ", ".join(f"{each:.4f}" if isinstance(each, float) else clip(str(each)) for each in vector[:4])
        return f"[{first}, …] ({len(vector)} dimensions)"
    if "b64_json" in item or "path" in item:
        return f"{len(body['data'])} pictures" if len(body["data"]) > 1 else "a picture"
    if isinstance(body.get("audio"), dict):
        return f"sound ({body['audio'].get('format') or 'of unknown format'})"
    if isinstance(body.get("text"), str):
        return clip(body["text"])
    if isinstance(body.get("output"), list):
        items = [_fields(item).get("content") for item in body["output"]]
        parts = [part for content in items if isinstance(content, list) for part in content if isinstance(part, dict)]
        return clip("".join(str(part.get("text") or "") for part in parts))
    return clip(msgspec.json.encode(body).decode())


def _fields(value: Any) -> dict[str, Any]:
    """Returns an object of a reply; an empty one in place of any other value."""
    return value if isinstance(value, dict) else {}


def _first(value: Any) -> dict[str, Any]:
    """Returns the first of a list of objects; an empty one for an empty list."""
    return _fields(value[0]) if isinstance(value, list) and value else {}


def _failure(record: dict[str, Any]) -> str:
    return one_line(f"{record['custom_id']}: {record['error']['kind']}: {record['error']['message']}")
