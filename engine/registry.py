"""kind → implementation, imported when first used. Plug-ins join by entry point."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from engine.errors import ConfigError, nearest


class Registry:
    """The implementations of one port, by kind. A third party adds one with an entry point of group `engine.<port>`."""

    def __init__(self, port: str, builtin: dict[str, str]) -> None:
        """`builtin` maps a kind to "module:attribute"; a module is imported only when its kind is asked for."""
        self.port = port
        self._where = builtin
        self._loaded: dict[str, Any] = {}
        self._plugins_read = False

    def get(self, kind: str) -> Any:
        """The implementation of `kind`. Raises ConfigError with the nearest names."""
        if kind in self._loaded:
            return self._loaded[kind]
        if kind not in self._where:
            self._read_plugins()
        where = self._where.get(kind)
        if where is None:
            raise ConfigError(f"{self.port}: no {kind!r} is registered; {nearest(kind, self._where)}")
        module, _, attribute = where.partition(":")
        self._loaded[kind] = getattr(importlib.import_module(module), attribute)
        return self._loaded[kind]

    def kinds(self) -> list[str]:
        self._read_plugins()
        return sorted(self._where)

    def _read_plugins(self) -> None:
        if self._plugins_read:
            return
        self._plugins_read = True
        for entry in entry_points(group=f"engine.{self.port}"):
            self._where.setdefault(entry.name, entry.value)


EXECUTORS = Registry(
    "executors",
    {
        "remote": "engine.executors.remote:RemoteExecutor",
        "local": "engine.executors.local:LocalExecutor",
        "simulated": "engine.executors.simulated:SimulatedExecutor",
    },
)
DIALECTS = Registry(
    "dialects",
    {
        "openai": "engine.dialects.openai:OpenAIDialect",
        "anthropic": "engine.dialects.anthropic:AnthropicDialect",
        "gemini": "engine.dialects.gemini:GeminiDialect",
        "ollama": "engine.dialects.ollama:OllamaDialect",
        "tgi": "engine.dialects.tgi:TgiDialect",
        "tei": "engine.dialects.tei:TeiDialect",
        "kserve": "engine.dialects.kserve:KServeDialect",
        "kserve_grpc": "engine.dialects.kserve_grpc:KServeGrpcDialect",
        "predict": "engine.dialects.kserve_predict:PredictDialect",
        "opea": "engine.dialects.opea:OpeaDialect",
    },
)
BATCH_DIALECTS = Registry(
    "batch_dialects",
    {
        "openai": "engine.dialects.openai_batch:OpenAIBatchDialect",
        "anthropic": "engine.dialects.anthropic_batch:AnthropicBatchDialect",
        "gemini": "engine.dialects.gemini_batch:GeminiBatchDialect",
    },
)
"""Batch APIs, by `provider.batch.api`."""
SERVER_DIALECTS = Registry(
    "server_dialects",
    {
        "openai": "engine.dialects.openai_server:OpenAIServerDialect",
        "anthropic": "engine.dialects.anthropic_server:AnthropicServerDialect",
        "gemini": "engine.dialects.gemini_server:GeminiServerDialect",
        "ollama": "engine.dialects.ollama_server:OllamaServerDialect",
        "tgi": "engine.dialects.tgi_server:TgiServerDialect",
        "tei": "engine.dialects.tei_server:TeiServerDialect",
        "kserve": "engine.dialects.kserve_server:KServeServerDialect",
        "kserve_grpc": "engine.dialects.kserve_grpc_server:KServeGrpcServerDialect",
        "predict": "engine.dialects.kserve_predict_server:PredictServerDialect",
        "opea": "engine.dialects.opea_server:OpeaServerDialect",
    },
)
"""The other direction: a client's wire request → canonical → the client's wire reply."""
TRANSPORTS = Registry(
    "transports",
    {
        "aiohttp": "engine.transports.aiohttp:AiohttpTransport",
        "httpx": "engine.transports.httpx:HttpxTransport",
        "grpc": "engine.transports.grpc:GrpcTransport",
    },
)
RUNTIMES = Registry(
    "runtimes",
    {
        "openvino": "engine.runtimes.openvino:OpenVinoRuntime",
        "torch": "engine.runtimes.torch:TorchRuntime",
    },
)
