"""`engine check`: what it says of each key, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.cli import main
from engine.cli.check_targets import provider_options
from tests.servers.replies import completion, error
from tests.servers.scripted import Exchange, ScriptedServer

Serve = Callable[..., Awaitable[ScriptedServer]]
GOOD, BAD = "sk-good-0123456789abcdef", "sk-bad-0123456789abcdef"
LIMITS = {
    "x-ratelimit-limit-requests": "5000", "x-ratelimit-remaining-requests": "4999",
    "x-ratelimit-reset-requests": "12ms",
    "x-ratelimit-limit-tokens": "40000", "x-ratelimit-remaining-tokens": "39000", "x-ratelimit-reset-tokens": "1s",
}  # fmt: skip


async def models(exchange: Exchange) -> None:
    if exchange.headers["authorization"] == f"Bearer {GOOD}":
        await exchange.reply(200, {"data": [{"id": "gpt-4o-mini"}]}, LIMITS)
    else:
        await exchange.reply(401, error(f"Incorrect API key {BAD}"))


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and a home with nothing in it, and no key in the environment."""
    for name in [name for name in os.environ if name.endswith(("_KEY", "_TOKEN", "_URL"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = await asyncio.to_thread(main, ["check", *words])
    said = capsys.readouterr()
    assert GOOD not in said.out + said.err
    assert BAD not in said.out + said.err
    return code, said.out + said.err


@pytest.mark.slow
async def test_each_key_has_a_row_with_its_place_whether_it_works_and_its_limits(
    alone: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", GOOD)
    (alone / ".env").write_text(f"OPENAI_API_KEY_1={BAD}\n")
    server = await serve(models)
    code, said = await check(capsys, "provider=openai", f"provider.base_url={server.url}")
    rows = [line.split("  ") for line in said.splitlines() if "OPENAI" in line]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert code == 4
    assert "1 of 2 keys work" in said
    assert cells[0][:4] == [
        "OPENAI_API_KEY", "environment", "yes", "4,999 of 5,000 requests, 39,000 of 40,000 tokens",
    ]  # fmt: skip
    assert cells[0][4] == "has gpt-4o-mini (1 model)"
    assert cells[1][:4] == ["OPENAI_API_KEY_1", ".env", "no", "–"]
    assert cells[1][4].startswith("auth: key OPENAI_API_KEY_1: HTTP 401: Incorrect API key ***")


@pytest.mark.slow
async def test_a_model_that_is_not_listed_has_the_nearest_name_beside_it(
    alone: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", GOOD)
    server = await serve(models)
    words = ["provider=openai", f"provider.base_url={server.url}", "model=remote", "model.name=gpt-4o-mni"]
    _, said = await check(capsys, *words)
    assert "does not list gpt-4o-mni (1 model); did you mean gpt-4o-mini?" in said


@pytest.mark.slow
async def test_the_same_as_data(
    alone: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", GOOD)
    server = await serve(models)
    code, said = await check(capsys, "provider=openai", f"provider.base_url={server.url}", "--json")
    (line,) = json.loads(said)
    (key,) = line["keys"]
    assert (code, line["ok"]) == (0, True)
    assert (key["key"], key["found_in"], key["works"], key["error"]) == ("OPENAI_API_KEY", "environment", True, None)
    assert key["limits"]["requests"] == {"limit": 5000, "remaining": 4999, "reset_s": 0.012}


HOSTED = ("gpt-4o-mini", "gpt-4o")
Handler = Callable[[Exchange], Awaitable[None]]


def server_of(paths: dict[str, Any], *, status: int = 200) -> Handler:
    """Answers these paths; every other one is not found."""

    async def script(exchange: Exchange) -> None:
        path = exchange.path.partition("?")[0]
        if path not in paths:
            await exchange.reply(404, error("Not Found"))
        elif exchange.method == "POST" and exchange.body == b"{}":
            await exchange.reply(400, error("model: field required"))
        elif exchange.method == "POST" and exchange.json["model"] not in HOSTED:
            await exchange.reply(404, error(f"The model {exchange.json['model']} does not exist"))
        else:
            await exchange.reply(200 if exchange.method == "GET" else status, paths[path])

    return script


LIST = {"data": [{"id": "gpt-4o-mini"}]}
WHOLE = {"/v1/models": LIST, "/v1/chat/completions": completion("Hi.")}
CHAT_ALONE = {"/v1/chat/completions": completion("Hi.")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("paths", "words", "code", "said"),
    [
        (WHOLE, [], 0, "has gpt-4o-mini (1 model)"),
        (CHAT_ALONE, [], 0, "keeps no list of models (HTTP 404); a trial (chat) was answered"),
        (
            WHOLE,
            ["model.name=gpt-4o"],
            0,
            "did you mean gpt-4o-mini?; a trial (chat) was answered",
        ),
        (WHOLE, ["model.name=gpt-9"], 4, "does not list gpt-9 (1 model)"),
        (CHAT_ALONE, ["model.name=gpt-9"], 4, "a trial (chat) failed: HTTP 404: The model gpt-9 does not exist"),
        (WHOLE, ["provider.base_url={url}"], 4, "Fix: provider.base_url={url}/v1"),
        ({"/v1/models": LIST}, [], 4, "a trial (chat) failed: HTTP 404"),
        ({}, [], 4, "a trial (chat) failed: HTTP 404"),
        (CHAT_ALONE, ["model.tasks=[image]"], 3, "keeps no list of models"),
        (WHOLE, ["model.tasks=[image]"], 0, "has gpt-4o-mini"),
    ],
)
async def test_a_check_works_fails_or_is_not_verified(
    alone: Path,
    serve: Serve,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    paths: dict[str, Any],
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", GOOD)
    server = await serve(server_of(paths))
    base = ["provider=openai", f"provider.base_url={server.url}/v1", "model=remote", "model.name=gpt-4o-mini"]
    given = {word.partition("=")[0]: word.format(url=server.url) for word in (*base, *words)}
    found, text = await check(capsys, *given.values())
    assert said.format(url=server.url) in text
    assert found == code, text
    mark = {0: "ok  ", 3: "?   ", 4: "FAIL"}[code]
    assert text.startswith(f"{mark} openai/")


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 400])
async def test_a_trial_that_shows_nothing_is_not_verified(
    alone: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", GOOD)
    server = await serve(server_of({"/v1/chat/completions": error("Try later.")}, status=status))
    code, said = await check(capsys, "provider=openai", f"provider.base_url={server.url}/v1", "--json")
    (line,) = json.loads(said)
    assert (code, line["state"], line["ok"], line["keys"][0]["works"]) == (3, "unverified", False, False)
    assert "a trial (chat) was not answered" in line["keys"][0]["found"]


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["anthropic", "gemini", "ollama", "tei", "kserve", "tf_serving"])
async def test_a_wire_that_is_not_spoken_there_fails(
    alone: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    """The list of models is at the same path for OpenAI's wire and Anthropic's."""
    for name in ("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, GOOD)
    server = await serve(server_of(WHOLE))
    words = [f"provider={provider}", f"provider.base_url={server.url}", "model=remote", "model.name=gpt-4o-mini"]
    code, said = await check(capsys, *words)
    assert code == 4, said


@pytest.mark.slow
async def test_each_further_endpoint_and_each_fallback_is_reached(
    alone: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", GOOD)
    server, other = await serve(models), await serve(models)
    code, said = await check(
        capsys, "provider=openai", f"provider.base_url={server.url}", f"provider.endpoints=[{other.url}]",
        "fallbacks=[{provider: simulated}]",
    )  # fmt: skip
    assert code == 0, said
    assert f"{other.url}: has gpt-4o-mini" in said
    assert "ok   simulated/" in said


@pytest.mark.slow
async def test_all_takes_every_provider_with_a_key_and_no_other(
    alone: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve(models)
    monkeypatch.setenv("OPENAI_API_KEY", GOOD)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    (alone / ".ipfs_api_credentials").write_text(json.dumps({"anthropic_api_key": GOOD}))
    (alone / ".ipfs_api_credentials").chmod(0o600)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    code, said = await check(capsys, "--all", "--json")
    found: dict[str, Any] = {line["target"].partition("/")[0]: line for line in json.loads(said)}
    assert code == 4
    assert sorted(found) == ["claude", "openai"]
    assert found["openai"]["ok"]
    assert found["claude"]["keys"][0]["found_in"] == "~/.ipfs_api_credentials"
    assert found["claude"]["keys"][0]["error"]["kind"] == "connect"


def test_a_file_of_keys_in_the_base_of_a_config_repo_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "provider").mkdir()
    (tmp_path / "provider" / "_remote.yaml").write_text("kind: remote\ncredential: {file: /run/secrets/keys}\n")
    (tmp_path / "provider" / "lab.yaml").write_text("defaults: [_remote]\nname: lab\nbase_url: http://127.0.0.1:9/v1\n")
    options = provider_options(str(tmp_path))
    assert options["lab"]["credential"] == {"file": "/run/secrets/keys"}
    assert options["groq"]["credential"]["file"] == "/run/secrets/keys"
    assert "credential" not in options["local"]
    assert not {"_remote", "anthropic"} & set(options)


@pytest.mark.slow
async def test_all_without_any_key_says_what_to_do(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = await check(capsys, "--all")
    assert code == 4
    assert "no provider has a key here" in said


@pytest.mark.slow
async def test_all_says_why_keys_could_not_be_looked_for(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (alone / ".ipfs_api_credentials").write_text(json.dumps({"anthropic_api_key": GOOD}))
    (alone / ".ipfs_api_credentials").chmod(0o644)
    code, said = await check(capsys, "--all")
    assert code == 4
    assert said == (
        "FAIL keys: ~/.ipfs_api_credentials: others can read it (mode 644). Next: chmod 600 ~/.ipfs_api_credentials\n"
    )


async def test_all_and_one_provider_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = await check(capsys, "--all", "provider=openai")
    assert code == 2
    assert "check --all" in said
