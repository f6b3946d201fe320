"""An executor: a provider that answers with the question, `provider=echo provider.shout=true`."""

from __future__ import annotations

from typing import Literal

from engine.core.request import Context, Request, Result
from engine.core.server_info import ServerInfo
from engine.core.usage import Usage
from engine.executors.services import Services
from engine.schemas import TargetSpec
from engine.schemas.provider import CommonProviderSpec


class EchoProviderSpec(CommonProviderSpec):
    """The knobs at `provider`."""

    kind: Literal["echo"]
    name: str = "echo"
    default_model: str | None = "parrot"
    shout: bool = False
    """Answer in capitals."""


class EchoExecutor:
    """Repeats the last message."""

    spec = EchoProviderSpec
    keys: tuple[str, ...] = ()
    tasks = frozenset({"chat"})

    def __init__(self, target: TargetSpec, services: Services) -> None:
        self.target = target
        self.server_info = ServerInfo()
        provider = target.provider
        assert isinstance(provider, EchoProviderSpec)
        self._shout = provider.shout

    async def start(self) -> None:
        """Nothing to prepare."""

    async def check(self) -> str:
        return "echoes"

    async def aclose(self) -> None:
        """Nothing to free."""

    async def __call__(self, request: Request, context: Context) -> Result:
        text = str(request.body["messages"][-1]["content"])
        message = {"role": "assistant", "content": text.upper() if self._shout else text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {"object": "chat.completion", "model": self.target.model_id, "choices": [choice]}
        usage = Usage(len(text.split()), len(text.split()))
        return Result(request.id or "", body, usage=usage, engine=context.record)
