"""Endpoint handlers: a callable for each model and endpoint of an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from engine.api.build import TargetChain
from engine.api.loop_host import LoopHost
from engine.api.sync import Submit, SyncEngine
from engine.core.errors import ConfigError, EngineError, nearest
from engine.core.request import Request, Result
from engine.core.task_table import ENDPOINTS, TASKS

_TASKS = {path: task for task, path in ENDPOINTS.items()} | {
    path.removeprefix("/v1/"): task for task, path in ENDPOINTS.items()
}
"""/v1/chat/completions, chat/completions and so on."""


@dataclass(frozen=True, slots=True)
class _Calls:
    """The ways of a handler into its engine."""

    submit: Submit
    sync: SyncEngine
    host: LoopHost


class EndpointHandlers(Mapping[str, "ModelEndpoints"]):
    """`handlers[model][endpoint]`, or `handlers(model, endpoint)`. Models go by their name or their id."""

    def __init__(self, chains: Sequence[TargetChain], submit: Submit, sync: SyncEngine, host: LoopHost) -> None:
        self._models: dict[str, ModelEndpoints] = {}
        self._ids: dict[str, str] = {}
        calls = _Calls(submit, sync, host)
        for chain in chains:
            target = chain.target
            if target.model.name in self._models:
                continue
            # The run's own model goes through the whole chain, with its fallbacks; another one is named.
            name = None if chain is chains[0] else chain.name
            tasks = [task for task in ENDPOINTS if task in (target.model.tasks or chain.executor.tasks)]
            self._models[target.model.name] = ModelEndpoints(calls, target.model.name, name, tasks)
            self._ids |= dict.fromkeys([target.model_id, *target.model.ids.values()], target.model.name)

    def __getitem__(self, model: str) -> ModelEndpoints:
        found = self._models.get(self._ids.get(model, model))
        if found is None:
            raise UnknownEndpoint(f"model {model!r} is not part of this engine; {nearest(model, self._models)}")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __contains__(self, model: object) -> bool:
        return model in self._models or model in self._ids

    def __call__(self, model: str, endpoint: str) -> EndpointHandler:
        """The handler of an endpoint. Raises UnknownEndpoint, a ConfigError and KeyError, with the nearest names."""
        return self[model][endpoint]


class ModelEndpoints(Mapping[str, "EndpointHandler"]):
    """The endpoints of one model. An endpoint goes by its task, or by its path in the OpenAI wire."""

    def __init__(self, calls: _Calls, model: str, target: str | None, tasks: list[str]) -> None:
        self._model = model
        self._handlers = {task: EndpointHandler(calls, model, target, task) for task in tasks}

    def __getitem__(self, endpoint: str) -> EndpointHandler:
        handler = self._handlers.get(_TASKS.get(endpoint, endpoint))
        if handler is None:
            raise UnknownEndpoint(
                f"model {self._model!r} has no endpoint {endpoint!r}; {nearest(endpoint, self._handlers)}"
            )
        return handler

    def __iter__(self) -> Iterator[str]:
        return iter(self._handlers)

    def __len__(self) -> int:
        return len(self._handlers)

    def __contains__(self, endpoint: object) -> bool:
        return endpoint in self._handlers or _TASKS.get(str(endpoint)) in self._handlers


class UnknownEndpoint(ConfigError, KeyError):
    """No such model or endpoint in this engine."""

    __str__ = ConfigError.__str__


class EndpointHandler:
    """Answers with one model and endpoint.

    `handler("text")` gives a Result in plain code. Where an event loop runs it gives a Pending: await it, or use it
    like the Result when the engine runs on a thread of its own.
    """

    def __init__(self, calls: _Calls, model: str, target: str | None, endpoint: str) -> None:
        self.model = model
        self.endpoint = endpoint
        self._calls = calls
        self._target = target

    def __repr__(self) -> str:
        return f"EndpointHandler({self.model!r}, {self.endpoint!r})"

    def __call__(self, content: Any = None, /, **body: Any) -> Any:
        """`content` is a text, a file's path, a list (messages, or texts to embed) or a whole body; `body` its further
        fields."""
        request = Request(self.endpoint, self._body(content, body))
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._calls.sync.submit(request, target=self._target)
        return Pending(self._calls, request, self._target)

    def _body(self, content: Any, body: dict[str, Any]) -> dict[str, Any]:
        if isinstance(content, dict):
            return {**content, **body}
        if content is None:
            return body
        if self.endpoint == "chat":
            messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
            return {"messages": messages, **body}
        return {TASKS[self.endpoint].field: content, **body}


class Pending:
    """A result to come. `await` it; or read the Result's attributes, which waits."""

    def __init__(self, calls: _Calls, request: Request, target: str | None) -> None:
        self._calls = calls
        self._request = request
        self._target = target
        self._future: Future[Result] | None = None
        if not calls.host.runs_here():
            self._future = calls.host.call(calls.submit(request, target=target))

    def __await__(self) -> Generator[Any, None, Result]:
        if self._future is None:
            return self._calls.submit(self._request, target=self._target).__await__()
        return asyncio.wrap_future(self._future).__await__()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._future is None:
            raise EngineError("this engine runs on this event loop: write `await handler(…)`")
        return getattr(self._future.result(), name)
