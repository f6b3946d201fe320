"""Parameters: what a target's model brings along, its id there, and how it is asked to go on."""

from __future__ import annotations

from typing import Any

import pytest

from engine import Request
from engine.core.errors import InvalidRequest
from engine.core.request import Context, Result
from engine.core.virtual_time import VirtualClock
from engine.middleware import parameters
from engine.schemas.model import ModelSpec
from engine.schemas.policy import PolicySpec
from engine.schemas.provider import ProviderSpec, RemoteProviderSpec, SimulatedProviderSpec
from tests.middleware.chain import branch, chain, context, in_virtual_time

HELLO = [{"role": "user", "content": "hello"}]


def remote(**fields: Any) -> RemoteProviderSpec:
    return RemoteProviderSpec(kind="remote", name="p", base_url="http://a/v1", **fields)


async def sent(
    clock: VirtualClock,
    asked: Request,
    model: ModelSpec | None = None,
    provider: ProviderSpec | None = None,
    primary: bool = True,
    mine: Context | None = None,
) -> dict[str, Any]:
    """The body that arrives behind the stage."""
    seen: list[dict[str, Any]] = []

    async def executor(request: Request, context: Context) -> Result:
        seen.append(request.body)
        return Result("r")

    here = branch(clock, PolicySpec(), provider=provider or remote(), model=model, primary=primary)
    await chain([parameters], here, executor)(asked, mine or context(clock))
    return seen[0]


def ask(**body: Any) -> Request:
    return Request("chat", {"messages": HELLO, **body})


@in_virtual_time
async def test_a_body_gets_the_models_id_and_its_parameters_where_it_sets_none(clock: VirtualClock) -> None:
    model = ModelSpec(name="m", ids={"p": "org/m"}, parameters={"temperature": 0.5, "top_p": 0.9})
    asked = ask(temperature=0)
    assert await sent(clock, asked, model) == {"messages": HELLO, "model": "org/m", "temperature": 0, "top_p": 0.9}
    assert asked.body == {"messages": HELLO, "temperature": 0}


@in_virtual_time
async def test_a_body_that_needs_nothing_goes_as_it_is(clock: VirtualClock) -> None:
    asked = ask(model="m")
    assert await sent(clock, asked) is asked.body


@in_virtual_time
async def test_a_remote_request_may_name_another_model(clock: VirtualClock) -> None:
    mine = context(clock)
    assert (await sent(clock, ask(model="other"), mine=mine))["model"] == "other"
    assert mine.record.warnings == []


@pytest.mark.parametrize(
    ("model", "provider", "primary"),
    [
        (ModelSpec(name="m", pin=True), remote(), True),
        (ModelSpec(name="m"), remote(), False),
        (ModelSpec(name="m"), None, True),
    ],
)
def test_elsewhere_it_gives_way_with_a_warning(model: ModelSpec, provider: ProviderSpec | None, primary: bool) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        mine = context(clock)
        where = provider or SimulatedProviderSpec(kind="simulated")
        body = await sent(clock, ask(model="other"), model, where, primary, mine)
        assert body["model"] == "m"
        assert mine.record.warnings == ["body.model 'other' gave way to 'm'"]

    scenario()


@in_virtual_time
async def test_every_name_of_the_model_is_its_own(clock: VirtualClock) -> None:
    model = ModelSpec(name="m", ids={"p": "org/m", "q": "m-2"}, pin=True)
    for name in ("m", "org/m", "m-2"):
        mine = context(clock)
        assert (await sent(clock, ask(model=name), model, mine=mine))["model"] == "org/m"
        assert mine.record.warnings == []


@in_virtual_time
async def test_a_model_that_is_no_name_is_refused(clock: VirtualClock) -> None:
    with pytest.raises(InvalidRequest, match=r"body\.model: expected a model's name, got int"):
        await sent(clock, ask(model=5))


# -- going on from a beginning ----------------------------------------------------------------------------------------


def continuing(clock: VirtualClock, beginning: str = "Once upon", tokens: int = 3) -> Context:
    mine = context(clock, stream=True)
    mine.prefill, mine.prefill_tokens = beginning, tokens
    return mine


@pytest.mark.parametrize(
    ("how", "turn", "more"),
    [
        ("assistant", {}, {}),
        ("prefix", {"prefix": True}, {}),
        ("continue_final_message", {}, {"continue_final_message": True, "add_generation_prompt": False}),
    ],
)
def test_each_provider_is_asked_in_its_own_way(how: Any, turn: dict[str, Any], more: dict[str, Any]) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        mine = continuing(clock)
        asked = ask()
        body = await sent(clock, asked, provider=remote(prefill=how), mine=mine)
        last = {"role": "assistant", "content": "Once upon", **turn}
        assert body == {"messages": [*HELLO, last], "model": "m", **more}
        assert mine.prefilled
        assert asked.body == {"messages": HELLO}

    scenario()


@in_virtual_time
async def test_what_was_said_counts_against_the_limit_which_stays_at_least_one(clock: VirtualClock) -> None:
    for limit, left in ((10, 7), (4, 1), (3, 1), (1, 1)):
        for name in ("max_tokens", "max_completion_tokens"):
            body = await sent(clock, ask(**{name: limit}), provider=remote(prefill="assistant"), mine=continuing(clock))
            assert body[name] == left
    body = await sent(clock, ask(max_tokens=None), provider=remote(prefill="assistant"), mine=continuing(clock))
    assert body["max_tokens"] is None


@in_virtual_time
async def test_who_can_not_go_on_is_asked_from_the_start(clock: VirtualClock) -> None:
    mine = continuing(clock)
    mine.prefilled = True  # of the attempt before
    assert await sent(clock, ask(), mine=mine) == {"messages": HELLO, "model": "m"}
    assert not mine.prefilled


@in_virtual_time
async def test_without_a_beginning_nothing_is_added(clock: VirtualClock) -> None:
    mine = context(clock, stream=True)
    assert await sent(clock, ask(), provider=remote(prefill="assistant"), mine=mine) == {
        "messages": HELLO,
        "model": "m",
    }
    assert not mine.prefilled


@in_virtual_time
async def test_a_completion_goes_on_from_a_longer_prompt_wherever_it_is(clock: VirtualClock) -> None:
    mine = continuing(clock)
    body = await sent(clock, Request("completion", {"prompt": "Tell: ", "max_tokens": 9}), mine=mine)
    assert body == {"prompt": "Tell: Once upon", "max_tokens": 6, "model": "m"}
    assert mine.prefilled
    assert (await sent(clock, Request("completion", {}), mine=continuing(clock)))["prompt"] == "Once upon"


@in_virtual_time
async def test_a_provider_without_a_wire_can_not_go_on_with_a_chat(clock: VirtualClock) -> None:
    mine = continuing(clock)
    await sent(clock, ask(), provider=SimulatedProviderSpec(kind="simulated"), mine=mine)
    assert not mine.prefilled


@pytest.mark.parametrize("prompt", [["Tell: "], [1, 2, 3], None])
def test_to_a_prompt_that_is_no_text_nothing_can_be_added(prompt: Any) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        mine = continuing(clock)
        asked = Request("completion", {"prompt": prompt})
        assert (await sent(clock, asked, provider=remote(prefill="assistant"), mine=mine))["prompt"] == prompt
        assert not mine.prefilled

    scenario()


@in_virtual_time
async def test_the_layer_says_its_settings(clock: VirtualClock) -> None:
    assert parameters.layer(branch(clock, PolicySpec())).settings == "model=m"
    model = ModelSpec(name="m", parameters={"temperature": 0, "seed": 1})
    assert parameters.layer(branch(clock, PolicySpec(), model=model)).settings == "model=m temperature=0 seed=1"
