"""Engines over the simulated provider, and the spans of a request, for tests of what is told about them."""

from __future__ import annotations

from typing import Any

from engine import Engine, Request, RunSpec

INSTALL = 'pip install -c constraints.txt -e ".[test]"'
"""What brings the packages that tests are skipped without."""
ANSWERED = 'engine_requests_total{model="m",outcome="ok",priority="normal",target="simulated/m"} 1.0\n'
"""The line of an engine that has answered one `chat()`."""


def engine(provider: dict[str, Any] | None = None, **groups: Any) -> Engine:
    """An engine of model m at the simulated provider; `groups` are more groups of the run spec."""
    return Engine(
        RunSpec.model_validate(
            {
                "provider": {"kind": "simulated", **(provider or {})},
                "hardware": {"kind": "cpu"},
                "model": {"name": "m"},
                "workload": {"kind": "sample"},
                **groups,
            }
        )
    )


def chat(text: str = "hello", **fields: Any) -> Request:
    return Request("chat", {"messages": [{"role": "user", "content": text}]}, **fields)


def spans(exporter: Any) -> tuple[Any, list[Any]]:
    """The span of the one request that was exported, and those of its attempts."""
    found = exporter.get_finished_spans()
    (root,) = [span for span in found if "engine.request.id" in span.attributes]
    attempts = [span for span in found if span.parent and span.parent.span_id == root.context.span_id]
    assert len(attempts) == len(found) - 1
    return root, attempts
