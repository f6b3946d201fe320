"""The last stage: it calls a target. One file a kind of provider."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.core import open_files
from engine.core.clock import Clock, SystemClock
from engine.core.media_access import INLINE_ONLY, MediaAccess
from engine.core.pipeline import Stage
from engine.core.server_info import ServerInfo
from engine.schemas.storage import StorageSpec

if TYPE_CHECKING:
    from engine.schemas import TargetSpec
    from engine.schemas.provider import TransportSpec
    from engine.transports.transport import Transport


@dataclass
class Services:
    """The services that the executors of one engine share."""

    clock: Clock = field(default_factory=SystemClock)
    seed: int = 0
    storage: StorageSpec | None = None
    """The settings for fetching and keeping models; None: those of the engine's run spec."""
    cache_dir: Path | None = None
    """The folder of cached artifacts; None: as in `storage`."""
    notify: Any = None
    """Called with a line of text when something slow begins, such as a download; None: such lines are dropped."""
    media: MediaAccess = INLINE_ONLY
    """The files and addresses that may be read for this machine's user."""
    transports: dict[TransportSpec, Transport] = field(default_factory=dict)
    runtimes: dict[str, Any] = field(default_factory=dict)
    """Models in this process, by hardware and model, so that targets share them."""

    def transport(self, spec: TransportSpec) -> Transport:
        """One client for each transport spec, with no more connections than this process may have."""
        from engine.core.registry import TRANSPORTS

        if spec not in self.transports:
            most = open_files.connections(spec.max_connections)
            if most < spec.max_connections and self.notify is not None:
                self.notify(f"provider.transport.max_connections is {most} here: {open_files.advice()}")
            fitting = spec.model_copy(update={"max_connections": most})
            self.transports[spec] = TRANSPORTS.get(spec.kind)(fitting)
        return self.transports[spec]

    async def aclose(self) -> None:
        transports, self.transports = self.transports, {}
        for transport in transports.values():
            await transport.aclose()


class Executor(Stage, Protocol):
    """Made with `cls(target, services)`; making one does no I/O and may raise SetupError (no key, no device)."""

    target: TargetSpec
    """The target, with the hardware that was found for `auto`."""
    keys: tuple[str, ...]
    """Names of the keys that a call may use; empty: none is needed. A call uses `context.attempt.key`."""
    tasks: frozenset[str]
    """The tasks that it can do."""
    server_info: ServerInfo
    """The facts of the target; filled in once they are known."""

    def __init__(self, target: TargetSpec, services: Services) -> None: ...

    async def start(self) -> None:
        """Gets ready: connects, downloads, loads. Called once, before the first call. Raises SetupError."""
        ...

    async def check(self) -> str:
        """Reaches the target and says in one line what it found. Raises EngineError."""
        ...

    async def aclose(self) -> None: ...
