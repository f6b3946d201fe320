"""`engine ask` and `engine chat`, over real sockets."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engine.cli import main
from engine.cli.ask import COMMAND
from engine.cli.parser import parse
from engine.core.errors import ConfigError
from tests.servers.replies import chunk, error
from tests.servers.scripted import Exchange, ScriptedServer

Serve = Callable[..., Awaitable[ScriptedServer]]


async def echo(exchange: Exchange) -> None:
    """Streams the last message back, in two pieces; refuses `no`."""
    messages: Any = exchange.json["messages"]
    if messages[-1]["content"] == "no":
        await exchange.reply(400, error("that is refused"))
        return
    await exchange.start()
    await exchange.event(chunk(f"{len(messages)}:"))
    await exchange.event(chunk(messages[-1]["content"]))
    await exchange.event(chunk(reason="stop"))
    await exchange.piece(b"data: [DONE]\n\n")
    await exchange.end()


@pytest.fixture
async def words(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    server = await serve(echo)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-talk-0123456789abcdef")
    monkeypatch.setenv("NO_PROXY", "*")
    return ["provider=openai", f"provider.base_url={server.url}/v1"]


async def said(capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, str, str]:
    code = await asyncio.to_thread(main, list(command))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.slow
async def test_a_question_is_answered(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert await said(capsys, "ask", "is a=b?", *words) == (0, "1:is a=b?\n", "")
    assert await said(capsys, "ask", "two", "words", *words, "prompt.system=Be brief.") == (0, "2:two words\n", "")


@pytest.mark.slow
async def test_a_question_that_fails_says_why(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = await said(capsys, "ask", "no", *words)
    assert (code, out) == (3, "")
    assert err.startswith("invalid_request: ")
    assert "that is refused" in err


@pytest.mark.slow
async def test_a_conversation_remembers_its_turns_but_not_those_that_failed(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\nno\ntwo\n"))
    code, out, err = await said(capsys, "chat", *words)
    assert (code, out) == (3, "1:one\n3:two\n")
    assert "that is refused" in err


async def test_a_question_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = await said(capsys, "ask", "provider=simulated")
    assert code == 2
    assert "ask: got no question; expected one. Fix: engine ask" in err
    with pytest.raises(ConfigError, match="ask: got nothing"):
        parse("ask", COMMAND, [])


async def test_a_model_that_does_not_chat_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = await said(capsys, "ask", "hi", "model=minilm-l6", "provider=simulated")
    assert code == 2
    assert "model.tasks: got embedding" in err
