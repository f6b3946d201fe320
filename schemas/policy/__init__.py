"""Group `policy`: presets composed of one sub-group a policy."""

from engine.schemas.base import Spec
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
    """How requests are carried: the middleware of the chain."""

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
