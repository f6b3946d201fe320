"""Group `policy`: presets composed of one sub-group a policy."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import ModelWrapValidatorHandler, model_validator

from engine.schemas.base import Spec
from engine.schemas.plugins import PluginError, plugins
from engine.schemas.policy.batch import BatchSpec, JobSpec
from engine.schemas.policy.breaker import BreakerSpec
from engine.schemas.policy.budget import BudgetSpec
from engine.schemas.policy.cache import CacheSpec
from engine.schemas.policy.concurrency import ConcurrencySpec
from engine.schemas.policy.deadline import DeadlineSpec
from engine.schemas.policy.fallback import FallbackSpec
from engine.schemas.policy.hedge import HedgeSpec
from engine.schemas.policy.preflight import PreflightSpec
from engine.schemas.policy.queue import QueueSpec
from engine.schemas.policy.rate_limit import RateLimitSpec
from engine.schemas.policy.retry import RetrySpec
from engine.schemas.policy.route import RouteSpec
from engine.schemas.policy.stream import StreamSpec
from engine.schemas.policy.timeout import TimeoutSpec


class PolicySpec(Spec):
    """The policies that carry requests: the middleware of the chain."""

    deadline: DeadlineSpec = DeadlineSpec()
    cache: CacheSpec = CacheSpec()
    stream: StreamSpec = StreamSpec()
    fallback: FallbackSpec = FallbackSpec()
    preflight: PreflightSpec = PreflightSpec()
    budget: BudgetSpec = BudgetSpec()
    retry: RetrySpec = RetrySpec()
    hedge: HedgeSpec = HedgeSpec()
    queue: QueueSpec = QueueSpec()
    route: RouteSpec = RouteSpec()
    rate_limit: RateLimitSpec = RateLimitSpec()
    concurrency: ConcurrencySpec = ConcurrencySpec()
    breaker: BreakerSpec = BreakerSpec()
    timeout: TimeoutSpec = TimeoutSpec()
    batch: BatchSpec = BatchSpec()
    stages: dict[str, Any] = {}
    """Stages of installed packages, by name: `policy.NAME.KNOB` is read into this. Each is the package's spec."""

    @model_validator(mode="wrap")
    @classmethod
    def _with_installed_stages(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Validates the keys that are installed stages by their own specs."""
        if not isinstance(value, Mapping):
            return handler(value)
        given = {**value.get("stages", {})}
        unknown = [name for name in value if name not in cls.model_fields and name in plugins("stages")]
        given |= {name: value[name] for name in unknown}
        if not given:
            return handler(value)
        own = {name: knobs for name, knobs in value.items() if name not in unknown}
        return handler({**own, "stages": {name: _stage_spec(name, knobs) for name, knobs in given.items()}})


def _stage_spec(name: str, knobs: Any) -> Spec:
    """Returns the validated spec of an installed stage. Raises ValueError."""
    plugin = plugins("stages").get(name)
    spec = plugin.spec() if plugin is not None else None
    if plugin is None or spec is None:
        raise PluginError(f"policy.stages.{name}: got a stage that no installed package has with a spec; "
                          "expected one of: " + (", ".join(plugins("stages")) or "none is installed") + ". "
                          "Fix: install its package, or remove the key")  # fmt: skip
    return knobs if isinstance(knobs, spec) else spec.model_validate(knobs or {})


__all__ = [
    "BatchSpec",
    "BreakerSpec",
    "BudgetSpec",
    "CacheSpec",
    "ConcurrencySpec",
    "DeadlineSpec",
    "FallbackSpec",
    "HedgeSpec",
    "JobSpec",
    "PolicySpec",
    "PreflightSpec",
    "QueueSpec",
    "RateLimitSpec",
    "RetrySpec",
    "RouteSpec",
    "StreamSpec",
    "TimeoutSpec",
]
