"""Engines over the simulated provider, for tests of what is told about them."""

from __future__ import annotations

from typing import Any

from engine import Engine, Request, RunSpec


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
