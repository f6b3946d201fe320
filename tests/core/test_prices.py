"""Price lists, and what calls cost by them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.config.compose import compose
from engine.core.errors import ConfigError
from engine.core.option_files import conf_dir
from engine.core.prices import Price, Prices, load, total
from engine.core.usage import Usage
from engine.schemas import TargetSpec
from engine.schemas.hardware import AutoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.prices import PriceSpec, PriceTierSpec
from engine.schemas.provider import RemoteProviderSpec
from engine.schemas.simulated import SimulatedProviderSpec

LISTS = sorted(file.stem for file in (conf_dir() / "prices").glob("*.yaml"))
PROVIDERS = {
    name: body
    for name, body in (
        (file.stem, yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in (conf_dir() / "provider").glob("*.yaml")
    )
    if body.get("prices")
}
CLAUDE = PriceSpec(
    input=3,
    output=15,
    cached_input=0.3,
    cache_write=3.75,
    cache_write_1h=6,
    batch=0.5,
    tiers=(PriceTierSpec(above_tokens=200_000, input=6, output=22.5, cached_input=0.6, cache_write=7.5),),
)
SOUND = PriceSpec(input=2.5, output=10, audio_input=32, audio_output=64, image_input=8, image_output=30)


def remote(model: str = "a", *, follows: bool = True, **fields: Any) -> Prices:
    provider = RemoteProviderSpec(kind="remote", name="p", base_url="https://p.example/v1", **fields)
    target = TargetSpec(
        provider=provider, model=ModelSpec(name="alias", ids={"p": model}), hardware=AutoHardwareSpec(kind="auto")
    )
    return Prices(target, follows)


def list_of(tmp_path: Path, **models: dict[str, Any]) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"date": "2026-11-01", "source": "our contract", "models": models}), "utf-8")
    return str(path)


# -- the lists --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LISTS)
def test_a_list_says_where_and_when_its_prices_were_read(name: str) -> None:
    found = load(name)
    assert found.source.startswith("https://")
    assert found.date.year >= 2026
    for model, price in found.models.items():
        sold = (price.input, price.audio_hour, price.characters, price.image)
        assert any(each is not None for each in sold), model
        if price.input is not None and price.cached_input is not None:
            assert price.cached_input <= price.input, model
        assert all(
            each.input is not None and price.input is not None and each.input > price.input for each in price.tiers
        )


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_a_provider_that_names_a_list_has_it_and_no_key_is_needed_to_see_its_price(name: str) -> None:
    spec = compose([f"provider={name}"]).spec
    (target,) = spec.targets
    prices = Prices(target, follows=True)
    assert prices.list is load(PROVIDERS[name]["prices"])
    # Together has retired its default model; what a chat costs Perplexity says itself.
    assert (prices.cost({}, Usage(1_000_000)) is not None) == (name not in ("together", "perplexity"))


@pytest.mark.parametrize(
    ("name", "model", "price"),
    [
        ("openai", "gpt-4o-mini", {"input": 0.15, "output": 0.6, "cached_input": 0.075}),
        ("openai", "text-embedding-3-small", {"input": 0.02}),
        ("openai", "whisper-1", {"audio_hour": 0.36}),
        ("openai", "tts-1", {"characters": 15.0}),
        ("claude", "claude-sonnet-4-6", {"input": 3, "output": 15, "cached_input": 0.3, "cache_write": 3.75}),
        ("groq", "openai/gpt-oss-120b", {"input": 0.15, "output": 0.6}),
        ("gemini", "gemini-2.5-pro", {"input": 1.25, "output": 10, "cached_input": 0.125}),
    ],
)
def test_published_prices_are_listed(name: str, model: str, price: dict[str, float]) -> None:
    found = load(name).models[model].model_dump()
    assert {kind: found[kind] for kind in price} == price


def test_an_unknown_list_is_named_with_its_nearest() -> None:
    with pytest.raises(ConfigError, match=r"provider\.prices: no price list 'opnai'; did you mean openai\?"):
        remote(prices="opnai")


def test_a_list_that_is_not_there_or_can_not_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml: No such file"):
        remote(prices=str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("models: [", "utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml can't be read"):
        remote(prices=str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("date: 2026-11-01\nsource: s\nmodels: {m: {inptu: 1}}", "utf-8")
    with pytest.raises(ConfigError, match=r"models\.m\.inptu: no such word here; did you mean input"):
        remote(prices=str(tmp_path / "mine.yaml"))


def test_a_list_that_was_changed_is_read_again(tmp_path: Path) -> None:
    path = list_of(tmp_path, a={"input": 1, "output": 1})
    assert remote(prices=path).cost({}, Usage(1_000_000)) == 1.0
    list_of(tmp_path, a={"input": 2, "output": 1}, b={"input": 3})
    assert remote(prices=path).cost({}, Usage(1_000_000)) == 2.0


def test_a_config_repos_list_stands_before_ours(tmp_path: Path) -> None:
    (tmp_path / "prices").mkdir()
    own = {"date": "2026-11-01", "source": "our contract", "models": {"gpt-4o-mini": {"input": 0.1, "output": 0.2}}}
    (tmp_path / "prices" / "openai.yaml").write_text(yaml.safe_dump(own), "utf-8")
    spec = compose(["provider=openai"], tmp_path).spec
    assert Prices(spec.targets[0], follows=True).cost({}, Usage(1_000_000)) == 0.1


def test_one_price_is_said_on_the_command_line_and_swept() -> None:
    spec = compose(["provider=openai", "provider.price.input=1", "provider.price.output=2"]).spec
    prices = Prices(spec.targets[0], follows=True)
    assert prices.cost({"model": "gpt-4o-mini"}, Usage(1_000_000, 1_000_000)) == 3.0
    assert prices.cost({"model": "gpt-4o"}, Usage(1_000_000)) == 2.5


# -- the arithmetic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "usage", "dollars"),
    [
        (PriceSpec(input=0.15, output=0.6), Usage(1000, 200), "0.00027"),
        (PriceSpec(input=0.15, output=0.6, cached_input=0.075), Usage(1000, 200, 400), "0.00024"),
        (PriceSpec(input=0.15, output=0.6), Usage(1000, 200, 400), "0.00027"),
        (PriceSpec(input=0.0375, output=0.15), Usage(1, 0), "0.0000000375"),
        (CLAUDE, Usage(2068, 503, 1800, cache_write_tokens=248, cache_write_1h_tokens=100), "0.009300"),
        (CLAUDE, Usage(200_000, 1000), "0.615"),
        (CLAUDE, Usage(200_001, 1000), "1.222506"),
        (CLAUDE, Usage(300_000, 0, cache_write_tokens=100_000, cache_write_1h_tokens=100_000), "1.95"),
        (SOUND, Usage(100, 100, audio_input_tokens=60, audio_output_tokens=90), "0.00788"),
        (SOUND, Usage(50, 50, image_input_tokens=40, image_output_tokens=50), "0.001845"),
        (PriceSpec(input=0.02), Usage(512), "0.00001024"),
        (PriceSpec(audio_hour=0.36), Usage(audio_s=12), "0.0012"),
        (PriceSpec(audio_hour=0.04, audio_least_s=10), Usage(audio_s=3), "0.000111111111"),
        (PriceSpec(characters=15), Usage(characters=1200), "0.018"),
        (PriceSpec(image=0.04), Usage(images=3), "0.12"),
        (PriceSpec(input=0, output=0), Usage(10, 10), "0"),
    ],
)
def test_a_cost_is_exact_to_the_picodollar(price: PriceSpec, usage: Usage, dollars: str) -> None:
    assert Price(price).cost(usage) == float(Decimal(dollars))


@pytest.mark.parametrize(
    ("price", "usage"),
    [
        (PriceSpec(input=0.02), Usage(512, 1)),
        (PriceSpec(output=1.0), Usage(1, 1)),
        (PriceSpec(input=1, output=1), Usage(images=1)),
        (PriceSpec(image=0.04), Usage(audio_s=1)),
        (PriceSpec(), Usage(1)),
    ],
)
def test_what_has_no_price_has_no_cost(price: PriceSpec, usage: Usage) -> None:
    assert Price(price).cost(usage) is None


def test_sound_that_came_from_the_cache_is_not_paid_for_twice() -> None:
    price = PriceSpec(input=1, output=1, cached_input=0.1, audio_input=2)
    assert Price(price).cost(Usage(100, 0, 100, audio_input_tokens=100)) == pytest.approx(0.00021)


@given(st.lists(st.integers(0, 10**15)), st.randoms())
def test_a_sum_is_the_same_in_any_order(picos: list[int], random: Any) -> None:
    costs = [each / 10**12 for each in picos]
    shuffled = random.sample(costs, len(costs))
    assert total(costs) == total(shuffled) == sum(picos) / 10**12


# -- whose price ------------------------------------------------------------------------------------------------------


def test_a_request_that_names_another_model_pays_that_ones_price(tmp_path: Path) -> None:
    prices = remote(prices=list_of(tmp_path, a={"input": 1, "output": 1}, b={"input": 5, "output": 5}))
    million = Usage(1_000_000)
    assert [prices.cost(body, million) for body in ({}, {"model": "a"}, {"model": "alias"}, {"model": "b"})] == [
        1.0, 1.0, 1.0, 5.0,
    ]  # fmt: skip
    assert prices.cost({"model": "c"}, million) is None
    assert prices.cost({"model": ["b"]}, million) is None


def test_where_a_requests_model_gives_way_it_pays_the_targets_price(tmp_path: Path) -> None:
    listed = list_of(tmp_path, a={"input": 1, "output": 1}, b={"input": 5, "output": 5})
    assert remote(prices=listed, follows=False).cost({"model": "b"}, Usage(1_000_000)) == 1.0


def test_a_price_of_ones_own_stands_before_the_list(tmp_path: Path) -> None:
    listed = list_of(tmp_path, a={"input": 1, "output": 1})
    prices = remote(prices=listed, price=PriceSpec(input=0.5, output=0.5))
    assert prices.cost({"model": "a"}, Usage(1_000_000)) == 0.5


def test_what_the_provider_says_stands_before_every_price(tmp_path: Path) -> None:
    prices = remote(prices=list_of(tmp_path, a={"input": 1, "output": 1}))
    assert prices.cost({}, Usage(1_000_000, cost=0.25)) == 0.25
    assert prices.batch_cost({}, Usage(1_000_000, cost=0.25)) == 0.25
    assert remote().cost({}, Usage(1, cost=0.25)) == 0.25


def test_without_a_list_nothing_is_known() -> None:
    assert remote().cost({}, Usage(1_000_000)) is None


@pytest.mark.parametrize(
    ("tier", "cost"),
    [
        (None, 2.0),
        ("auto", 2.0),
        ("default", 2.0),
        ("standard_only", 2.0),
        ("flex", 1.0),
        ("priority", None),
        (["x"], None),
    ],
)
def test_another_service_tier_has_its_own_price_or_none(tmp_path: Path, tier: Any, cost: float | None) -> None:
    prices = remote(prices=list_of(tmp_path, a={"input": 2, "output": 1, "flex": 0.5}))
    assert prices.cost({"service_tier": tier}, Usage(1_000_000)) == cost
    assert prices.cost({"service_tier": tier, "model": "b"}, Usage(1_000_000)) is None


def test_a_batch_job_takes_its_share_and_may_take_all_of_what_the_cache_gives(tmp_path: Path) -> None:
    listed = list_of(
        tmp_path,
        a={"input": 2, "output": 4, "cached_input": 1, "batch": 0.5},
        b={"input": 2, "output": 4, "cached_input": 1, "batch": 0.5, "batch_cached": 1},
        c={"input": 2, "output": 4},
    )
    prices, usage = remote(prices=listed), Usage(1_000_000, 1_000_000, 500_000)
    assert [prices.batch_cost({"model": model}, usage) for model in "abc"] == [2.75, 3.0, None]


def test_a_simulated_target_costs_what_it_is_said_to() -> None:
    target = TargetSpec(
        provider=SimulatedProviderSpec(kind="simulated", price=PriceSpec(input=1, output=2)),
        model=ModelSpec(name="m"),
        hardware=AutoHardwareSpec(kind="auto"),
    )
    assert Prices(target, follows=False).cost({"model": "gpt-4o"}, Usage(1_000_000, 1_000_000)) == 3.0
