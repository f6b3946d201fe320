"""The facts that a server of KServe's v2 protocol reports of itself and of a model.

Source: KServe, "Open Inference Protocol (V2)", "Health", "Server Metadata", "Model Metadata"; OVMS, "Configuration
Status" (`GET /v1/config`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.core.server_info import ServerInfo


def server_info(answers: Sequence[tuple[int, Any]]) -> ServerInfo:
    """From the answers, status and content, about the model's metadata, its readiness, the server's metadata, and where
    there is one OVMS's configuration."""
    (told, model), (held, ready), (_, server), *rest = answers
    config = rest[0][1] if rest else None
    found = ServerInfo(missing=told == 404)
    if type(server) is dict and type(server.get("name")) is str:
        found.found = f"{server['name']} {server.get('version') or ''}".strip()
    if held == 200 and (type(ready) is not dict or ready.get("ready", True)):
        found.found += ", the model is ready"
    elif told == 200:
        found.found += ", the model is not ready"
    if type(config) is dict:
        found.found += states(config)
    if type(model) is dict:
        metadata = {side: tensors(model.get(side)) for side in ("inputs", "outputs")}
        if metadata["inputs"]:
            found.defaults = {"metadata": metadata}
            found.found += "".join(f", {side}: {shown(entries)}" for side, entries in metadata.items() if entries)
    found.found = found.found.removeprefix(", ")
    return found


def tensors(entries: Any) -> list[dict[str, Any]]:
    """Name, datatype and shape of each tensor; what can't be read is left out."""
    if type(entries) is not list:
        return []
    return [
        {"name": each["name"], "datatype": each["datatype"], "shape": each["shape"]}
        for each in entries
        if type(each) is dict
        and type(each.get("name")) is str
        and type(each.get("datatype")) is str
        and type(each.get("shape")) is list
    ]


def shown(entries: list[dict[str, Any]]) -> str:
    """Tensors in one line."""
    return ", ".join(f"{each['name']} {each['datatype']} {each['shape']}" for each in entries)


def states(config: dict[str, Any]) -> str:
    """Returns what OVMS's configuration, or TensorFlow Serving's model status, says of models that are not
    available."""
    held = [
        f"{name} {version.get('state')}"
        for name, entry in config.items()
        if type(entry) is dict
        for version in entry.get("model_version_status") or ()
        if type(version) is dict and version.get("state") != "AVAILABLE"
    ]
    return f", not available: {', '.join(held)}" if held else ""
