"""`tool_choice` of the type allowed_tools, for wires that have no such choice: the other tools are left out."""

from __future__ import annotations

from typing import Any

from engine.core.errors import InvalidRequest

_MODES = ("auto", "required")


def narrowed(body: dict[str, Any]) -> dict[str, Any]:
    """Returns a chat body with the allowed tools alone, and their mode as its `tool_choice`; the body itself if it has
    another choice. Source: OpenAI's API reference, "Create chat completion", tool_choice. Raises InvalidRequest."""
    choice = body.get("tool_choice")
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return body
    allowed = choice.get("allowed_tools")
    if not isinstance(allowed, dict) or not isinstance(allowed.get("tools"), list):
        raise InvalidRequest("body.tool_choice.allowed_tools: expected an object with mode and tools")
    if allowed.get("mode") not in _MODES:
        raise InvalidRequest(
            f"body.tool_choice.allowed_tools.mode: got {allowed.get('mode')!r}; expected one of {', '.join(_MODES)}"
        )
    names = [_name(tool) for tool in allowed["tools"]]
    tools = [tool for tool in body.get("tools") or () if _name(tool) in names]
    missing = [name for name in names if name not in map(_name, tools)]
    if missing or not tools:
        raise InvalidRequest(f"body.tool_choice.allowed_tools.tools: {missing} are not in body.tools")
    return {**body, "tools": tools, "tool_choice": allowed["mode"]}


def _name(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None
