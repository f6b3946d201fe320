"""`policy.route`: which key an attempt uses."""

from typing import Literal

from schemas.base import Spec


class RouteSpec(Spec):
    """Choice of the key."""

    keys: Literal["round_robin", "least_loaded"] = "round_robin"
    """round_robin: in turn; least_loaded: the one with the fewest calls in flight."""
