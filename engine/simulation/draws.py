"""Random amounts: latencies, lengths of answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from engine.schemas.simulated import Distribution


def sampler(distribution: Distribution, middle: float, sigma: float) -> Callable[[Random], float]:
    """Draws amounts of one distribution. `middle` is the value (constant), the median (lognormal) or the mean
    (exponential); 0 is always 0. `sigma` is the standard deviation of a lognormal amount's logarithm."""
    if distribution == "constant" or middle == 0:
        return lambda rng: middle
    if distribution == "exponential":
        rate = 1.0 / middle
        return lambda rng: rng.expovariate(rate)
    centre = math.log(middle)
    return lambda rng: rng.lognormvariate(centre, sigma)
