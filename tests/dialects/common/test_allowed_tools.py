"""`tool_choice` of the type allowed_tools on wires without it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.core.errors import InvalidRequest
from engine.dialects.anthropic.client import AnthropicDialect
from engine.dialects.tgi.client import TgiDialect

MESSAGES = [{"role": "user", "content": "hi"}]


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


def choice(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def sent(dialect: Any, choice: Any) -> dict[str, Any]:
    body = {"messages": MESSAGES, "tools": [tool("a"), tool("b"), tool("c")], "tool_choice": choice}
    found: dict[str, Any] = msgspec.json.decode(dialect.encode("chat", body, model="m", stream=False).content)
    assert [each["function"]["name"] for each in body["tools"]] == ["a", "b", "c"]
    return found


@pytest.mark.parametrize(("mode", "claude"), [("auto", "auto"), ("required", "any")])
def test_the_other_tools_are_left_out(mode: str, claude: str) -> None:
    tgi = sent(TgiDialect(), choice(mode, "c", "a"))
    assert [each["function"]["name"] for each in tgi["tools"]] == ["a", "c"]
    assert tgi["tool_choice"] == mode
    anthropic = sent(AnthropicDialect(), choice(mode, "b"))
    assert [each["name"] for each in anthropic["tools"]] == ["b"]
    assert anthropic["tool_choice"] == {"type": claude}


@pytest.mark.parametrize("dialect", [TgiDialect, AnthropicDialect])
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (choice("auto", "z"), r"tools: \['z'\] are not in body.tools"),
        (choice("auto"), r"tools: \[\] are not in body.tools"),
        (choice("any", "a"), "mode: got 'any'; expected one of auto, required"),
        ({"type": "allowed_tools"}, "expected an object with mode and tools"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": "a"}}, "expected an object"),
    ],
)
def test_a_choice_that_is_not_whole_is_refused(dialect: Any, said: Any, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^body\.tool_choice\.allowed_tools.*{reason}"):
        sent(dialect(), said)
