"""Group `policy`: presets composed of one sub-group a policy."""

from schemas.base import Spec
from schemas.policy.batch import BatchSpec, JobSpec
from schemas.policy.breaker import BreakerSpec
from schemas.policy.budget import BudgetSpec
from schemas.policy.cache import CacheSpec
from schemas.policy.concurrency import ConcurrencySpec
from schemas.policy.deadline import DeadlineSpec
from schemas.policy.fallback import FallbackSpec
from schemas.policy.hedge import HedgeSpec
from schemas.policy.preflight import PreflightSpec
from schemas.policy.queue import QueueSpec
from schemas.policy.rate_limit import RateLimitSpec
from schemas.policy.retry import RetrySpec
from schemas.policy.route import RouteSpec
from schemas.policy.stream import StreamSpec
from schemas.policy.timeout import TimeoutSpec


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
