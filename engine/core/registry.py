"""kind → implementation, imported when first used. Plug-ins join by entry point."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from engine.core.errors import ConfigError, nearest


class Registry:
    """The implementations of one port, by kind. A third party adds one with an entry point of group `engine.<port>`."""

    def __init__(self, port: str, builtin: dict[str, str]) -> None:
        """`builtin` maps a kind to "module:attribute"; a module is imported when its kind is first used."""
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
        "openai": "engine.dialects.openai.client:OpenAIDialect",
        "anthropic": "engine.dialects.anthropic.client:AnthropicDialect",
        "gemini": "engine.dialects.gemini.client:GeminiDialect",
        "ollama": "engine.dialects.ollama.client:OllamaDialect",
        "tgi": "engine.dialects.tgi.client:TgiDialect",
        "tei": "engine.dialects.tei.client:TeiDialect",
        "kserve": "engine.dialects.kserve.client:KServeDialect",
        "kserve_grpc": "engine.dialects.kserve.grpc_client:KServeGrpcDialect",
        "predict": "engine.dialects.tensorflow_serving.client:PredictDialect",
        "opea": "engine.dialects.opea.client:OpeaDialect",
    },
)
BATCH_DIALECTS = Registry(
    "batch_dialects",
    {
        "openai": "engine.dialects.openai.batch:OpenAIBatchDialect",
        "anthropic": "engine.dialects.anthropic.batch:AnthropicBatchDialect",
        "gemini": "engine.dialects.gemini.batch:GeminiBatchDialect",
    },
)
"""Batch APIs, by `provider.batch.api`."""
SERVER_DIALECTS = Registry(
    "server_dialects",
    {
        "openai": "engine.dialects.openai.server:OpenAIServerDialect",
        "anthropic": "engine.dialects.anthropic.server:AnthropicServerDialect",
        "gemini": "engine.dialects.gemini.server:GeminiServerDialect",
        "ollama": "engine.dialects.ollama.server:OllamaServerDialect",
        "tgi": "engine.dialects.tgi.server:TgiServerDialect",
        "tei": "engine.dialects.tei.server:TeiServerDialect",
        "kserve": "engine.dialects.kserve.server:KServeServerDialect",
        "kserve_grpc": "engine.dialects.kserve.grpc_server:KServeGrpcServerDialect",
        "predict": "engine.dialects.tensorflow_serving.server:PredictServerDialect",
        "opea": "engine.dialects.opea.server:OpeaServerDialect",
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
        "openvino": "engine.runtimes.openvino.runtime:OpenVinoRuntime",
        "torch": "engine.runtimes.torch.runtime:TorchRuntime",
    },
)
