"""The cost of a call: a price list, and the arithmetic.

Sums are made of whole picodollars (10⁻¹² US dollars), which is what one token costs at a millionth of a dollar a
million. So they are exact in any order, and a total is the sum of its parts. Words as in `schemas.prices`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.core.errors import ConfigError, nearest
from engine.core.option_files import conf_dir
from engine.core.usage import Usage
from engine.schemas import TargetSpec
from engine.schemas.prices import PriceListSpec, PriceSpec, PriceTierSpec, TokenPricesSpec

PICO = 1_000_000_000_000
"""Picodollars in a dollar."""
_PER_TOKEN = PICO / 1_000_000
_USUAL_TIERS = frozenset(("auto", "default", "standard", "standard_only", "on_demand"))
"""Values of a request's `service_tier` that mean the usual price, at OpenAI, Anthropic and Groq."""


class Rates:
    """Picodollars for a token of each kind; None: not known."""

    __slots__ = (
        "audio_input", "audio_output", "cache_write", "cache_write_1h", "cached_input", "image_input", "image_output",
        "input", "output",
    )  # fmt: skip

    def __init__(self, spec: TokenPricesSpec, share: float, cached_share: float) -> None:
        self.input = _picos(spec.input, share)
        self.output = _picos(spec.output, share)
        self.cached_input = _picos(spec.cached_input, cached_share, self.input)
        self.cache_write = _picos(spec.cache_write, share, self.input)
        self.cache_write_1h = _picos(spec.cache_write_1h, share, self.cache_write)
        self.audio_input = _picos(spec.audio_input, share, self.input)
        self.audio_output = _picos(spec.audio_output, share, self.output)
        self.image_input = _picos(spec.image_input, share, self.input)
        self.image_output = _picos(spec.image_output, share, self.output)

    def cost(self, usage: Usage) -> int | None:
        """Picodollars for the tokens; None when a kind that was used has no price."""
        total, prompt, answer = 0, usage.input_tokens, usage.output_tokens
        try:  # every attempt comes by: one test a kind, and None refuses to be multiplied
            if count := usage.cached_tokens:
                total += count * self.cached_input  # type: ignore[operator]
                prompt -= count
            if count := usage.cache_write_tokens:
                long = usage.cache_write_1h_tokens
                if long:
                    total += long * self.cache_write_1h  # type: ignore[operator]
                total += (count - long) * self.cache_write  # type: ignore[operator]
                prompt -= count
            if count := usage.audio_input_tokens:
                total += count * self.audio_input  # type: ignore[operator]
                prompt -= count
            if count := usage.image_input_tokens:
                total += count * self.image_input  # type: ignore[operator]
                prompt -= count
            if count := usage.audio_output_tokens:
                total += count * self.audio_output  # type: ignore[operator]
                answer -= count
            if count := usage.image_output_tokens:
                total += count * self.image_output  # type: ignore[operator]
                answer -= count
            # Below 0: cached audio or images, which a provider reports as both.
            if prompt > 0:
                total += prompt * self.input  # type: ignore[operator]
            if answer > 0:
                total += answer * self.output  # type: ignore[operator]
        except TypeError:
            return None
        return total


class Price:
    """One model's price, ready to be multiplied."""

    __slots__ = ("_audio_least_s", "_audio_s", "_character", "_image", "_tiers", "rates")

    def __init__(self, spec: PriceSpec, share: float = 1.0, cached_share: float | None = None) -> None:
        """`share` of it is charged, of what the cache gives `cached_share`."""
        cached_share = share if cached_share is None else cached_share
        self.rates = Rates(spec, share, cached_share)
        tiers = sorted(spec.tiers, key=lambda tier: -tier.above_tokens)
        self._tiers = tuple((tier.above_tokens, Rates(tier, share, cached_share)) for tier in tiers)
        self._image = None if spec.image is None else spec.image * share * PICO
        self._audio_s = None if spec.audio_hour is None else spec.audio_hour * share * PICO / 3600
        self._audio_least_s = spec.audio_least_s
        self._character = None if spec.characters is None else spec.characters * share * _PER_TOKEN

    def cost(self, usage: Usage) -> float | None:
        """US dollars; None when something that was used has no price."""
        rates = self.rates
        if self._tiers:
            for above, tier in self._tiers:
                if usage.input_tokens > above:
                    rates = tier
                    break
        total = self._pieces(usage) if usage.images or usage.audio_s or usage.characters else rates.cost(usage)
        if total is None and (usage.input_tokens or usage.output_tokens):
            total = rates.cost(usage)
        return None if total is None else total / PICO

    def _pieces(self, usage: Usage) -> int | None:
        """Picodollars for what is sold by the piece; None: this model is not."""
        if usage.images and self._image is not None:
            return round(usage.images * self._image)
        if usage.audio_s and self._audio_s is not None:
            return round(max(usage.audio_s, self._audio_least_s) * self._audio_s)
        if usage.characters and self._character is not None:
            return round(usage.characters * self._character)
        return None


class Prices:
    """The costs of one target's calls."""

    def __init__(self, target: TargetSpec, follows: bool) -> None:
        """`follows`: a request's own model is kept there. Reads the price list. Raises ConfigError."""
        provider, model = target.provider, target.model
        named = provider.prices if provider.kind == "remote" else None
        self.list: PriceListSpec | None = load(named) if named is not None else None
        listed = self.list.models if self.list is not None else {}
        own = provider.price if provider.price is not None else listed.get(target.model_id)
        self.own: PriceSpec | None = own
        self._own = Price(own) if own is not None else None
        self._specs: dict[str, PriceSpec] = dict(listed) if follows else {}
        if own is not None:
            self._specs |= dict.fromkeys((model.name, target.model_id, *model.ids.values()), own)
        self._follows = follows
        self._made: dict[str, Price | None] = {}
        self._discounts: dict[tuple[str | None, str | None], Price] = {}

    def cost(self, body: dict[str, Any], usage: Usage) -> float | None:
        """US dollars for a call with this canonical body; None: not known. What the provider said itself counts."""
        if usage.cost is not None:
            return usage.cost
        price = self._own
        model = body.get("model")
        if model is not None and self._follows:
            try:
                price = self._made[model]
            except (KeyError, TypeError):
                price = self._make(model)
        if price is None:
            return None
        if "service_tier" in body:
            tier = body["service_tier"]
            if tier is not None and not (type(tier) is str and tier in _USUAL_TIERS):
                return self._discounted(model, "flex" if tier == "flex" else None, usage)
        return price.cost(usage)

    def batch_cost(self, body: dict[str, Any], usage: Usage) -> float | None:
        """The same for a member of a provider's batch job."""
        return usage.cost if usage.cost is not None else self._discounted(body.get("model"), "batch", usage)

    def _spec(self, model: Any) -> PriceSpec | None:
        return self.own if model is None or not self._follows else self._specs.get(model)

    def _make(self, model: Any) -> Price | None:
        if type(model) is not str:
            return None
        spec = self._specs.get(model)
        if spec is None:
            return None  # not kept: a client may name as many models as it likes
        price = self._made[model] = Price(spec)
        return price

    def _discounted(self, model: Any, how: str | None, usage: Usage) -> float | None:
        spec = self._spec(model) if model is None or type(model) is str else None
        share = getattr(spec, how) if spec is not None and how is not None else None
        if spec is None or share is None:
            return None
        key = (model, how)
        if key not in self._discounts:
            self._discounts[key] = Price(spec, share, spec.batch_cached if how == "batch" else None)
        return self._discounts[key].cost(usage)


def load(name: str) -> PriceListSpec:
    """The list of this name in conf/prices, or in a YAML file of one's own. Raises ConfigError."""
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else conf_dir() / "prices" / f"{name}.yaml"
    try:
        changed = os.stat(path).st_mtime_ns
    except OSError as error:
        known = sorted(file.stem for file in (conf_dir() / "prices").glob("*.yaml"))
        what = f"{path}: {error.strerror}" if path.suffix != ".yaml" or path.name != f"{name}.yaml" else repr(name)
        near = nearest(name, known)
        other = " Or" if near.endswith("?") else ", or"
        raise ConfigError(
            f"provider.prices: no price list {what}; {near}{other} give the path of a YAML file of your own"
        ) from error
    return _read(path, changed)


@lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> PriceListSpec:
    """`changed` is when the file was written, so that a changed one is read again."""
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return PriceListSpec.model_validate(yaml.load(path.read_text(encoding="utf-8"), loader))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"provider.prices: {path} can't be read: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ConfigError(
            "provider.prices: " + "\n".join(_wrong(path, dict(each)) for each in error.errors())
        ) from error


def _wrong(path: Path, problem: dict[str, Any]) -> str:
    """One line for what pydantic found."""
    *within, key = map(str, problem["loc"])
    said = str(problem["msg"])
    if problem["type"] == "extra_forbidden":
        words = (
            PriceListSpec if not within else PriceSpec if within[0] == "models" and len(within) == 2 else PriceTierSpec
        )
        said = f"no such word here; {nearest(key, words.model_fields)}"
    return f"{path}: {'.'.join([*within, key])}: {said}"


def total(costs: Iterable[float]) -> float:
    """The exact sum of costs in US dollars."""
    return sum(round(cost * PICO) for cost in costs) / PICO


def _picos(price: float | None, share: float, otherwise: int | None = None) -> int | None:
    return otherwise if price is None else round(price * share * _PER_TOKEN)
