"""Endpoints with keys of their own, over real sockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engine import Engine, Request
from engine.config.compose import compose
from engine.core.errors import AuthFailed, ConfigError, SetupError
from tests.servers.replies import completion
from tests.servers.scripted import Exchange, ScriptedServer

pytestmark = pytest.mark.slow
Serve = Callable[..., Awaitable[ScriptedServer]]
CHAT = Request("chat", {"messages": [{"role": "user", "content": "x"}]})
FIRST, SECOND = "sk-first0123456789abcdef", "sk-second123456789abcdef"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_A_KEY", FIRST)
    monkeypatch.setenv("NODE_B_KEY", SECOND)


async def answer(exchange: Exchange) -> None:
    if exchange.path == "/models":
        await exchange.reply(200, {"data": [{"id": "m"}]})
    else:
        await exchange.reply(200, completion())


def engine(*urls: str, credentials: dict[str, str]) -> Engine:
    spec = compose(["provider=ovms", "model=remote", "model.name=m", "policy=off", f"provider.base_url={urls[0]}"]).spec
    named: Any = {url: {"env": (name,), "required": True} for url, name in credentials.items()}
    provider = type(spec.provider).model_validate(
        {**spec.provider.model_dump(), "endpoints": urls[1:], "endpoint_credentials": named}
    )
    return Engine(spec.model_copy(update={"provider": provider}))


def sent(server: ScriptedServer) -> set[str]:
    return {exchange.headers["authorization"] for exchange in server.exchanges}


async def test_each_endpoint_gets_its_own_key_and_no_other(serve: Serve) -> None:
    a, b = await serve(answer), await serve(answer)
    async with engine(a.url, b.url, credentials={a.url: "NODE_A_KEY", b.url: "NODE_B_KEY"}) as own:
        results = [await own.submit(CHAT) for _ in range(4)]
        checked = await own.pipeline.target_chains[0].executor.check()
    assert all(result.ok for result in results)
    assert (sent(a), sent(b)) == ({f"Bearer {FIRST}"}, {f"Bearer {SECOND}"})
    assert "NODE_A_KEY" in checked
    assert "NODE_B_KEY" in checked


async def test_a_refused_key_is_named(serve: Serve) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.reply(401, {"error": {"message": f"unknown key {SECOND}"}})

    server = await serve(refuse)
    async with engine(server.url, credentials={server.url: "NODE_B_KEY"}) as own:
        result = await own.submit(CHAT)
    assert isinstance(result.error, AuthFailed)
    assert "key NODE_B_KEY" in str(result.error)
    assert SECOND not in str(result.error)


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        ({"http://127.0.0.1:9": "NODE_A_KEY"}, "is not one of the addresses; did you mean http"),
        ({"http://127.0.0.1:1": "NODE_A_KEY"}, "http://127.0.0.1:2 has no key; name one for each"),
    ],
)
def test_an_address_without_a_key_is_refused(credentials: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        engine("http://127.0.0.1:1", "http://127.0.0.1:2", credentials=credentials)


def test_a_key_that_is_not_there_says_where_it_was_looked_for() -> None:
    with pytest.raises(SetupError, match="NODE_C_KEY"):
        engine("http://127.0.0.1:1", credentials={"http://127.0.0.1:1": "NODE_C_KEY"})
