"""Policies that can be changed while an engine runs: `engine.policy`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from engine.api.build import TargetChain
from engine.api.loop_host import LoopHost
from engine.core.errors import ConfigError, nearest
from engine.core.request import PRIORITIES
from engine.core.resources import Resources
from engine.middleware.breaker import Breaker
from engine.middleware.concurrency import AdaptiveLimit
from engine.middleware.queue import PriorityGate
from engine.middleware.route_keys import KeyRing
from engine.schemas.base import Spec
from engine.schemas.policy import BreakerSpec, ConcurrencySpec, QueueSpec

State = TypeVar("State")


class LivePolicy:
    """Reads and changes the policies of an engine while it runs. From any thread.

    `engine.policy` speaks for all targets: it reads the first one's values and changes all of them.
    `engine.policy["groq/llama"]` speaks for one. Values are checked like configuration and raise ConfigError.
    """

    def __init__(self, resources: Resources, chains: Sequence[TargetChain], host: LoopHost) -> None:
        self._resources = resources
        self._chains = chains
        self._host = host

    def __getitem__(self, target: str) -> LivePolicy:
        """The policy of one target, by its name."""
        chains = [chain for chain in self._chains if chain.name == target]
        if not chains:
            names = [chain.name for chain in self._chains]
            raise ConfigError(f"policy: {target!r} is not a target of this engine; {nearest(target, names)}")
        return LivePolicy(self._resources, chains, self._host)

    @property
    def queue(self) -> QueueControl:
        return QueueControl(self._host, "policy.queue", self._states("queue"), QueueSpec)

    @property
    def breaker(self) -> BreakerControl:
        breakers = [
            self._resources.find(("breaker", endpoint, chain.target.model_id))
            for chain in self._chains
            for endpoint in chain.endpoints
        ]
        return BreakerControl(self._host, "policy.breaker", [each for each in breakers if each], BreakerSpec)

    @property
    def concurrency(self) -> ConcurrencyControl:
        return ConcurrencyControl(self._host, "policy.concurrency", self._states("concurrency"), ConcurrencySpec)

    @property
    def keys(self) -> KeysControl:
        return KeysControl(self._host, self._states("keys"))

    def prioritise(self, request_id: str, priority: str) -> bool:
        """Gives a waiting request another priority (high, normal, low); its place counts from when it came.

        False: no request of that id waits. Raises ConfigError for another word.
        """
        if priority not in PRIORITIES:
            raise ConfigError(f"priority: {priority!r} is not a priority; one of: {', '.join(PRIORITIES)}")
        gates = self._states("queue")
        tier = PRIORITIES[priority]
        moved: list[bool] = []
        self._host.on_all(gates, lambda gate: moved.append(gate.reprioritise(request_id, tier)))
        return any(moved)

    def _states(self, kind: str) -> list[Any]:
        states = [self._resources.find((kind, chain.name)) for chain in self._chains]
        return [state for state in states if state is not None]


class _Control(Generic[State]):
    """Knobs of one policy over the states that it governs."""

    def __init__(self, host: LoopHost, path: str, states: Iterable[State], spec: type[Spec]) -> None:
        self._host = host
        self._path = path
        self._states = list(states)
        self._spec = spec

    def _read(self, name: str) -> Any:
        return getattr(self._first(), name)

    def _first(self) -> State:
        if not self._states:
            raise ConfigError(f"{self._path}: this policy is off; choose an option of {self._path.replace('.', '/')}")
        return self._states[0]

    def _write(self, name: str, value: Any) -> None:
        self._first()
        try:
            checked = getattr(self._spec.model_validate({name: value}), name)
        except ValidationError as error:
            raise ConfigError(f"{self._path}.{name}={value!r}: {error.errors()[0]['msg'].lower()}") from error
        self._host.on_all(self._states, lambda state: setattr(state, name, checked))


class QueueControl(_Control[PriorityGate]):
    """`engine.policy.queue`: how many may be past the queue, and how many may wait."""

    @property
    def size(self) -> int:
        return int(self._read("size"))

    @size.setter
    def size(self, requests: int) -> None:
        self._write("size", requests)

    @property
    def concurrency(self) -> int:
        return int(self._read("concurrency"))

    @concurrency.setter
    def concurrency(self, requests: int) -> None:
        self._write("concurrency", requests)

    @property
    def on_full(self) -> str:
        return str(self._read("on_full"))

    @on_full.setter
    def on_full(self, what: str) -> None:
        self._write("on_full", what)

    @property
    def ageing_s(self) -> float:
        """Counts for those who come from now on."""
        return float(self._read("ageing_s"))

    @ageing_s.setter
    def ageing_s(self, seconds: float) -> None:
        self._write("ageing_s", seconds)

    @property
    def waiting(self) -> int:
        """Requests that wait, at all its targets."""
        return sum(gate.waiting for gate in self._states)

    @property
    def active(self) -> int:
        """Requests that are past the queue, at all its targets."""
        return sum(gate.active for gate in self._states)


class BreakerControl(_Control[Breaker]):
    """`engine.policy.breaker`: the circuits."""

    @property
    def mode(self) -> str:
        return str(self._read("mode"))

    @mode.setter
    def mode(self, mode: str) -> None:
        self._write("mode", mode)

    @property
    def states(self) -> dict[str, str]:
        """closed, open or half_open, by endpoint."""
        return {breaker.name: breaker.state.value for breaker in self._states}

    def reset(self) -> None:
        """Closes every circuit and forgets what was counted."""
        self._host.on_all(self._states, Breaker.reset)


class ConcurrencyControl(_Control[AdaptiveLimit]):
    """`engine.policy.concurrency`: the adaptive limits."""

    @property
    def limits(self) -> list[int]:
        """The present limit of calls at once, by target."""
        return [round(limit.limit) for limit in self._states]

    @property
    def maximum(self) -> int:
        return int(self._read("maximum"))

    @maximum.setter
    def maximum(self, calls: int) -> None:
        self._write("maximum", calls)


class KeysControl:
    """`engine.policy.keys`: the keys of the targets."""

    def __init__(self, host: LoopHost, rings: list[KeyRing]) -> None:
        self._host = host
        self._rings = rings

    @property
    def states(self) -> dict[str, str]:
        """By the key's name: ready, cooling, barred (with the seconds that are left) or parked (with the reason)."""
        return {name: ring.state(name) for ring in self._rings for name in ring.names}

    def unpark(self, name: str | None = None) -> None:
        """Brings a parked or cooling key back, or all of them."""
        self._host.on_all(self._rings, lambda ring: ring.unpark(name))
