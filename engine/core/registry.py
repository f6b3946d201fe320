"""kind → implementation, imported at first use. Plug-ins join by entry point."""

from __future__ import annotations

import importlib
from typing import Any

from engine.core.errors import ConfigError, nearest
from engine.schemas.plugins import Plugin, PluginError, plugins


class Registry:
    """The implementations of one port, by kind. A package adds one with an entry point of the group `engine.<port>`."""

    def __init__(self, port: str, knob: str, builtin: dict[str, str]) -> None:
        """`knob` is the path that names the kind in YAML. `builtin` maps a kind to "module:attribute"; a module is
        imported when its kind is first used."""
        self.port = port
        self.knob = knob
        self.builtin = builtin
        self._loaded: dict[str, Any] = {}

    def get(self, kind: str) -> Any:
        """Returns the implementation of `kind`. Raises ConfigError with the nearest names, or the plug-in's error."""
        if kind in self._loaded:
            return self._loaded[kind]
        where = self.builtin.get(kind)
        if where is not None:
            module, _, attribute = where.partition(":")
            imported = importlib.import_module(module)
            self._loaded[kind] = getattr(imported, attribute) if attribute else imported
        else:
            self._loaded[kind] = self._plugin(kind)
        return self._loaded[kind]

    def kinds(self) -> list[str]:
        """Returns every kind, ours and installed ones."""
        return sorted({*self.builtin, *plugins(self.port)})

    def plugins(self) -> dict[str, Plugin]:
        """Returns the installed kinds that are not ours; a plug-in can't replace a kind of ours."""
        return {kind: plugin for kind, plugin in plugins(self.port).items() if kind not in self.builtin}

    def _plugin(self, kind: str) -> Any:
        plugin = plugins(self.port).get(kind)
        if plugin is None:
            near = nearest(kind, self.kinds()).rstrip("?")
            raise ConfigError(f"{self.knob}: got {kind}; expected an installed kind: {near}. Fix: see engine plugins")
        try:
            return plugin.load()
        except PluginError as error:
            raise ConfigError(str(error)) from error


EXECUTORS = Registry(
    "executors",
    "provider.kind",
    {
        "remote": "engine.executors.remote:RemoteExecutor",
        "local": "engine.executors.local:LocalExecutor",
        "simulated": "engine.executors.simulated:SimulatedExecutor",
    },
)
DIALECTS = Registry(
    "dialects",
    "provider.dialect",
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
    "provider.batch.api",
    {
        "openai": "engine.dialects.openai.batch:OpenAIBatchDialect",
        "anthropic": "engine.dialects.anthropic.batch:AnthropicBatchDialect",
        "gemini": "engine.dialects.gemini.batch:GeminiBatchDialect",
    },
)
"""Batch APIs, by `provider.batch.api`."""
SERVER_DIALECTS = Registry(
    "server_dialects",
    "wire",
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
    "provider.transport.kind",
    {
        "aiohttp": "engine.transports.aiohttp:AiohttpTransport",
        "httpx": "engine.transports.httpx:HttpxTransport",
        "grpc": "engine.transports.grpc:GrpcTransport",
    },
)
RUNTIMES = Registry(
    "runtimes",
    "hardware.kind",
    {
        "openvino": "engine.runtimes.openvino.runtime:OpenVinoRuntime",
        "torch": "engine.runtimes.torch.runtime:TorchRuntime",
    },
)
WORKLOADS = Registry(
    "workloads",
    "workload.kind",
    {
        "sample": "engine.workloads.sample:open_sample",
        "jsonl": "engine.workloads.jsonl:open_jsonl",
        "csv": "engine.workloads.csv:open_csv",
        "parquet": "engine.workloads.parquet:open_parquet",
        "txt": "engine.workloads.txt:open_txt",
        "stdin": "engine.workloads.stdin:open_stdin",
        "synthetic": "engine.workloads.synthetic:open_synthetic",
    },
)
"""Openers of workloads: `open(spec, form, seed) -> Source`."""
SOURCES = Registry(
    "sources",
    "model.sources[].kind",
    {
        "hub": "engine.artifacts.hub:HubSource",
        "package": "engine.artifacts.package:PackageSource",
        "file": "engine.artifacts.file:FileSource",
        "s3": "engine.artifacts.s3:S3Source",
        "ipfs": "engine.artifacts.ipfs:IpfsSource",
        "https": "engine.artifacts.https:HttpsSource",
    },
)
"""Sources of model files."""
STAGES = Registry(
    "stages",
    "policy",
    {
        name: f"engine.middleware.{name}"
        for name in (
            *("trace", "deadline", "cache", "rescue"),
            *("preflight", "retry", "hedge", "queue", "route", "parameters", "rate_limit", "concurrency", "breaker"),
            *("timeout", "batch"),
        )
    },
)
"""The modules of our stages; a plug-in's stage is its class."""
PORTS = (STAGES, DIALECTS, BATCH_DIALECTS, TRANSPORTS, EXECUTORS, RUNTIMES, WORKLOADS, SOURCES)
"""Every port that takes plug-ins, in the order of a request's way."""
