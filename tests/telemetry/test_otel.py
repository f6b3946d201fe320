"""engine/telemetry/otel.py, with the SDK's own in-memory exporters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Request, Result, Usage
from engine.core.errors import ServerFailed
from engine.core.request import Attempt, EngineRecord
from engine.core.virtual_time import VirtualClock, run
from engine.schemas import TargetSpec
from engine.telemetry.counted import BOUNDS_S
from engine.telemetry.otel import BOUNDS_TOKENS, OpenTelemetry
from tests.telemetry.served import INSTALL, chat, engine, spans

pytest.importorskip("opentelemetry.sdk", reason=INSTALL)

from opentelemetry import trace
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

ROOT = Path(__file__).resolve().parents[2]


def target(name: str = "openai", model: str = "gpt-x", **fields: Any) -> TargetSpec:
    provider = {"kind": "remote", "name": name, "base_url": f"https://api.{name}.example/v1", **fields}
    return TargetSpec.model_validate({"provider": provider, "model": {"name": model}, "hardware": {"kind": "cpu"}})


def observer(*targets: TargetSpec, content: bool = False) -> OpenTelemetry:
    return OpenTelemetry({each.name: each for each in targets or (target(),)}, Stopped(), content)


class Stopped:
    """A clock that stands at one moment."""

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1_700_000_000.0


def answered(**fields: Any) -> Result:
    """A retry, then an answer of gpt-x-2026 at openai."""
    attempts = [
        Attempt("openai/gpt-x", "KEY_1", outcome="throttled", started_s=0.5, duration_s=0.25, status=429),
        Attempt(
            "openai/gpt-x",
            "KEY_2",
            role="retry",
            outcome="ok",
            started_s=1.0,
            duration_s=2.0,
            status=200,
            usage=Usage(100, 20, cached_tokens=64, reasoning_tokens=8),
            cost=0.01,
            **fields,
        ),
    ]
    record = EngineRecord("openai/gpt-x", attempts, queued_s=0.5, total_s=3.0, cost=0.01)
    body = {"id": "chatcmpl-1", "model": "gpt-x-2026", "choices": [{"message": {}, "finish_reason": "stop"}]}
    return Result("a", body=body, usage=Usage(100, 20), engine=record)


def test_a_request_is_a_span_and_each_attempt_a_child(exported: InMemorySpanExporter) -> None:
    observer()(chat(id="a"), answered())
    root, (first, second) = spans(exported)
    assert (root.name, root.kind, root.status.status_code) == ("chat gpt-x", SpanKind.INTERNAL, StatusCode.UNSET)
    assert root.attributes is not None
    assert root.attributes["engine.request.id"] == "a"
    assert root.attributes["engine.attempts"] == 2
    assert (first.name, first.kind) == ("chat gpt-x", SpanKind.CLIENT)
    assert second.kind is SpanKind.CLIENT


def test_spans_have_the_times_of_what_they_stand_for(exported: InMemorySpanExporter) -> None:
    observer()(chat(), answered())
    root, attempts = spans(exported)
    ended = 1_700_000_000 * 10**9
    assert (root.start_time, root.end_time) == (ended - 3 * 10**9, ended)
    assert root.start_time is not None
    times = [(span.start_time, span.end_time) for span in attempts]
    assert [(start - root.start_time, end - root.start_time) for start, end in times if start and end] == [
        (500_000_000, 750_000_000),
        (1_000_000_000, 3_000_000_000),
    ]


def test_an_attempt_says_by_the_conventions_who_was_asked_for_what_and_what_came(
    exported: InMemorySpanExporter,
) -> None:
    request = chat()
    request.body |= {"max_tokens": 32, "temperature": 0, "stop": "END", "n": 2, "seed": 7}
    observer()(request, answered())
    _, (_, second) = spans(exported)
    assert second.attributes is not None
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.request.max_tokens": 32,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.seed": 7,
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "gpt-x-2026",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.usage.reasoning.output_tokens": 8,
        "server.address": "api.openai.example",
        "server.port": 443,
        "engine.target": "openai/gpt-x",
        "engine.key": "KEY_2",
        "engine.attempt.role": "retry",
        "engine.cost_usd": 0.01,
        "http.response.status_code": 200,
    }
    assert dict(second.attributes) == expected


def test_a_failed_attempt_has_its_word_as_error_type(exported: InMemorySpanExporter) -> None:
    observer()(chat(), answered())
    root, (first, second) = spans(exported)
    assert first.status.status_code is StatusCode.ERROR
    assert first.attributes is not None
    assert first.attributes["error.type"] == "throttled"
    assert second.status.status_code is StatusCode.UNSET
    assert "error.type" not in (root.attributes or {})


def test_a_failed_request_has_its_word_and_not_its_message(exported: InMemorySpanExporter) -> None:
    record = EngineRecord("openai/gpt-x", [Attempt("openai/gpt-x", outcome="server", message="quoted prompt")])
    observer()(chat(), Result("a", error=ServerFailed("quoted prompt"), engine=record))
    root, (attempt,) = spans(exported)
    assert root.attributes is not None
    assert (root.status.status_code, root.attributes["error.type"]) == (StatusCode.ERROR, "server")
    assert "quoted prompt" not in root.to_json() + attempt.to_json()


def test_tokens_stand_in_attempts_only_so_that_a_sum_over_spans_is_right(exported: InMemorySpanExporter) -> None:
    result = answered()
    result.engine.attempts[0].usage = Usage(100, 3)
    observer()(chat(), result)
    counted = [span.attributes.get("gen_ai.usage.output_tokens") for span in exported.get_finished_spans()
               if span.attributes]  # fmt: skip
    assert sum(tokens for tokens in counted if isinstance(tokens, int)) == 23
    assert "gen_ai.usage.output_tokens" not in (spans(exported)[0].attributes or {})


def test_tokens_that_only_the_result_knows_are_its_last_attempts(exported: InMemorySpanExporter) -> None:
    record = EngineRecord("openai/gpt-x", [Attempt("openai/gpt-x", outcome="ok")])
    observer()(chat(), Result("a", body={}, usage=Usage(7, 3), engine=record))
    _, (attempt,) = spans(exported)
    assert (attempt.attributes or {})["gen_ai.usage.input_tokens"] == 7


def test_a_stream_says_when_its_first_chunk_came(exported: InMemorySpanExporter) -> None:
    observer()(chat(), answered(first_token_s=0.4))
    _, (first, second) = spans(exported)
    assert second.attributes is not None
    assert second.attributes["gen_ai.response.time_to_first_chunk"] == 0.4
    assert second.attributes["gen_ai.request.stream"] is True
    assert "gen_ai.request.stream" not in (first.attributes or {})


def test_the_parent_is_the_span_in_which_the_request_was_made(exported: InMemorySpanExporter) -> None:
    with trace.get_tracer("caller").start_as_current_span("caller") as caller:
        observer()(chat(), answered())
    (root,) = [span for span in exported.get_finished_spans() if "engine.request.id" in (span.attributes or {})]
    assert root.parent is not None
    assert root.parent.span_id == caller.get_span_context().span_id


def test_attempts_at_other_targets_have_their_providers_and_models(exported: InMemorySpanExporter) -> None:
    fallback = TargetSpec.model_validate(
        {"provider": {"kind": "local", "default_model": "n"}, "model": {"name": "n"}, "hardware": {"kind": "cpu"}}
    )
    attempts = [Attempt("mistral/gpt-x", outcome="connect"), Attempt("local/n@cpu", role="fallback", outcome="ok")]
    request = chat()
    request.body["model"] = "a-row's-own"
    result = Result("a", body={}, engine=EngineRecord("local/n@cpu", attempts))
    observer(target("mistral"), fallback)(request, result)
    root, (first, second) = spans(exported)
    assert first.attributes is not None
    assert second.attributes is not None
    assert first.attributes["gen_ai.provider.name"] == "mistral_ai"
    assert first.attributes["gen_ai.request.model"] == "a-row's-own"
    assert (second.attributes["gen_ai.provider.name"], second.attributes["gen_ai.request.model"]) == ("local", "n")
    assert second.kind is SpanKind.INTERNAL
    assert (root.attributes or {})["gen_ai.provider.name"] == "local"


@pytest.mark.parametrize(("task", "operation"), [("completion", "text_completion"), ("embedding", "embeddings")])
def test_a_task_goes_by_its_name_in_the_conventions(exported: InMemorySpanExporter, task: str, operation: str) -> None:
    observer()(Request(task, {"input": "x", "prompt": "x"}), answered())
    assert spans(exported)[0].name == f"{operation} gpt-x"


def test_no_content_is_recorded_unless_it_is_asked_for(exported: InMemorySpanExporter) -> None:
    result = answered()
    assert result.body is not None
    result.body["choices"][0]["message"] = {"role": "assistant", "content": "secret answer"}
    observer()(chat("secret question"), result)
    assert "secret" not in "".join(span.to_json() for span in exported.get_finished_spans())
    exported.clear()
    observer(content=True)(chat("secret question"), result)
    root, attempts = spans(exported)
    assert root.attributes is not None
    assert json.loads(str(root.attributes["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": "secret question"}]}
    ]
    assert json.loads(str(root.attributes["gen_ai.output.messages"])) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "secret answer"}], "finish_reason": "stop"}
    ]
    assert "secret" not in "".join(span.to_json() for span in attempts)


def measured(reader: InMemoryMetricReader, model: str) -> dict[str, list[Any]]:
    """The data points of each metric that belong to a model, or to a target with it."""
    found: dict[str, list[Any]] = {}
    data = reader.get_metrics_data()
    assert data is not None
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points = [point for point in metric.data.data_points if model in str(dict(point.attributes or {}))]
                found[metric.name] = points
    return found


def test_metrics_count_each_attempt_once(sdk: tuple[InMemorySpanExporter, InMemoryMetricReader]) -> None:
    result = answered(first_token_s=0.4)
    for attempt in result.engine.attempts:
        attempt.target = "openai/metered"
    result.engine.target = "openai/metered"
    observer(target(model="metered"))(chat(), result)
    found = measured(sdk[1], "metered")
    durations = found["gen_ai.client.operation.duration"]
    assert sorted(point.attributes.get("error.type", "") for point in durations) == ["", "throttled"]
    assert {point.sum for point in durations} == {0.25, 2.0}
    assert {point.explicit_bounds for point in durations} == {BOUNDS_S}
    tokens = {point.attributes["gen_ai.token.type"]: point for point in found["gen_ai.client.token.usage"]}
    assert {kind: point.sum for kind, point in tokens.items()} == {"input": 100, "output": 20}
    assert tokens["input"].explicit_bounds == BOUNDS_TOKENS
    assert [point.sum for point in found["gen_ai.client.operation.time_to_first_chunk"]] == [0.4]
    (whole,) = found["engine.request.duration"]
    assert (whole.count, whole.sum) == (1, 3.0)
    assert dict(whole.attributes) == {
        "gen_ai.operation.name": "chat", "engine.target": "openai/metered", "engine.priority": "normal"
    }  # fmt: skip


def observed(asked: Engine) -> OpenTelemetry:
    return OpenTelemetry({way.name: way.target for way in asked.pipeline.target_chains}, asked.clock)


async def test_an_engines_request_has_a_span_of_its_own_length(exported: InMemorySpanExporter) -> None:
    async with engine({"latency_s": 0.02}) as asked:
        observe = observed(asked)
        request = chat()
        observe(request, await asked.submit(request))
    root, (attempt,) = spans(exported)
    for span in (root, attempt):
        assert span.start_time is not None
        assert span.end_time is not None
        assert 20e6 <= span.end_time - span.start_time < 2e9
    assert (attempt.attributes or {})["gen_ai.usage.output_tokens"] == 8


PROGRAM = """
from engine.core.request import Attempt, EngineRecord, Request, Result
from engine.core.clock import SystemClock
from engine.telemetry.otel import OpenTelemetry
from engine.schemas import TargetSpec
target = TargetSpec.model_validate(
    {"provider": {"kind": "simulated"}, "model": {"name": "m"}, "hardware": {"kind": "cpu"}})
observe = OpenTelemetry({target.name: target}, SystemClock())
record = EngineRecord(target.name, [Attempt(target.name, outcome="ok")])
observe(Request("chat", {"messages": []}), Result("a", engine=record))
"""


def process(code: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment |= {"PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, env=environment, timeout=60
    )


@pytest.mark.slow
def test_the_sdk_is_set_up_as_the_environment_says() -> None:
    names = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console", "OTEL_SERVICE_NAME": "ours"}
    said = process(PROGRAM, **names)
    assert said.returncode == 0, said.stderr
    assert said.stdout.count('"name": "chat m"') == 2
    assert '"service.name": "ours"' in said.stdout
    assert "gen_ai.client.operation.duration" in said.stdout


@pytest.mark.slow
def test_an_exporter_that_is_not_there_is_refused_with_the_variable() -> None:
    said = process(PROGRAM, OTEL_TRACES_EXPORTER="pigeon", OTEL_METRICS_EXPORTER="none")
    assert "SetupError: telemetry.otel: the OTEL_* environment variables can't be followed" in said.stderr
    assert "pigeon" in said.stderr


@pytest.mark.slow
def test_without_a_collector_one_line_is_told_and_the_end_is_not_held_up() -> None:
    code = (
        "from engine.telemetry.otel import _set_up_sdk\n"
        "_set_up_sdk()\n"
        "from opentelemetry import metrics, trace\n"
        "trace.get_tracer('t').start_span('a').end()\n"
        "metrics.get_meter('t').create_counter('c').add(1)\n"
        "metrics.get_meter_provider().shutdown(); trace.get_tracer_provider().shutdown()\n"
    )
    done = process(code, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="1")
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["telemetry.otel"]
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in done.stderr


def site_without(folder: Path, missing: str) -> Path:
    """A folder with links to everything that is installed, but not to one module or sub-module."""
    top, _, sub = missing.partition(".")
    for site in (Path(path) for path in sys.path if path.endswith(("site-packages", "dist-packages"))):
        for entry in site.iterdir():
            link = folder / entry.name
            if entry.name == top and sub:
                link.mkdir()
                for child in entry.iterdir():
                    if child.name != sub:
                        (link / child.name).symlink_to(child)
            elif entry.name != top and not link.exists():
                link.symlink_to(entry)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "named"), [("opentelemetry", "opentelemetry-api"), ("opentelemetry.sdk", "opentelemetry-sdk")]
)
def test_a_missing_package_is_named_with_the_way_to_install_it(missing: str, named: str, tmp_path: Path) -> None:
    path = f"{ROOT}{os.pathsep}{site_without(tmp_path, missing)}"
    said = process(PROGRAM, "-S", PYTHONPATH=path)
    assert f"SetupError: telemetry.otel: {named} is not installed" in said.stderr
    assert "pip install 'ipfs-accelerate[otel]'" in said.stderr


def test_spans_of_a_run_in_virtual_time_have_its_times(exported: InMemorySpanExporter) -> None:
    async def ask(clock: VirtualClock) -> None:
        targets = {"openai/gpt-x": target()}
        OpenTelemetry(targets, clock)(chat(), answered())

    run(ask)
    root, _ = spans(exported)
    assert root.end_time == 1_700_000_000 * 10**9
