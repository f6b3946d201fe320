"""Each provider's field map (`provider.fields`), also against the types of the vendors' own SDKs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
from pydantic import TypeAdapter, ValidationError

from engine.config.compose import compose
from engine.core.errors import ConfigError, InvalidRequest
from engine.core.request import Context, EngineRecord, Request
from engine.executors.field_map import FieldMaps
from engine.executors.remote import RemoteExecutor
from engine.executors.services import Services
from engine.schemas.provider import FieldsSpec, RemoteProviderSpec
from tests.servers.replies import completion
from tests.servers.scripted import Exchange, ScriptedServer

Executors = Callable[..., RemoteExecutor]
ROW: dict[str, Any] = {
    "messages": [
        {"role": "developer", "content": "Answer with one word.", "name": "ops"},
        {"role": "user", "content": "Which town is the capital of France?"},
    ],
    "max_completion_tokens": 32,
    "temperature": 0,
    "top_p": 1,
    "seed": 7,
    "stop": ["\n"],
    "user": "u1",
    "metadata": {"row": "1"},
    "store": False,
    "reasoning_effort": "low",
}
"""One row of a sweep over providers."""
REFUSED = {
    "mistral": {"logit_bias": {"5": 1}, "min_p": 0.1},
    "groq": {"logit_bias": {"5": 1}, "top_k": 5, "min_p": 0.1, "logprobs": True},
    "cerebras": {"top_k": 5, "min_p": 0.1},
}


def mistral_type() -> tuple[Any, set[str]]:
    from mistralai.client.models import ChatCompletionRequest

    return ChatCompletionRequest, set(ChatCompletionRequest.model_fields)


def groq_type() -> tuple[Any, set[str]]:
    from groq.types.chat.completion_create_params import CompletionCreateParams

    return CompletionCreateParams, set(get_type_hints(CompletionCreateParams))


def cerebras_type() -> tuple[Any, set[str]]:
    from cerebras.cloud.sdk.types.chat.completion_create_params import CompletionCreateParams

    return CompletionCreateParams, set(get_type_hints(CompletionCreateParams))


def openai_type() -> tuple[Any, set[str]]:
    from openai.types.chat.completion_create_params import CompletionCreateParamsBase

    return CompletionCreateParamsBase, {*get_type_hints(CompletionCreateParamsBase), "stream"}


TYPES = {"mistral": mistral_type, "groq": groq_type, "cerebras": cerebras_type, "openai": openai_type}


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Executors:
    monkeypatch.setenv("TEST_KEY", "key-of-a-field-map-test")

    def of(provider: str, model: str | None = None, *overrides: str) -> RemoteExecutor:
        named = [f"provider={provider}", "provider.credential.env=[TEST_KEY]", *overrides]
        if model is not None:
            named += ["model=remote", f"model.name={model}"]
        return RemoteExecutor(compose(named).spec.targets[0], Services())

    return of


def sent(executor: RemoteExecutor, body: dict[str, Any], stream: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The body of the call, and the warnings."""
    context = Context(EngineRecord(), 0.0, stream=stream)
    wire = executor.wire(Request("chat", body), context)
    return msgspec.json.decode(wire.content), list(context.record.warnings)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", None),
        ("openai", "gpt-5-mini"),
        ("openai", "o3"),
        ("mistral", None),
        ("groq", "openai/gpt-oss-20b"),
        ("groq", "qwen/qwen3-32b"),
        ("cerebras", None),
    ],
)
def test_one_row_fits_the_types_of_each_vendors_sdk(
    executor: Executors, provider: str, model: str | None, stream: bool
) -> None:
    body, _ = sent(executor(provider, model), ROW, stream)
    kind, fields = TYPES[provider]()
    assert set(body) - fields == set()
    assert body["stop"] == ["\n"]
    TypeAdapter(kind).validate_python(body)  # raises for a role or an effort that the vendor's types lack
    for message in body["messages"]:
        assert provider in ("openai",) or message["role"] != "developer"


def test_the_check_against_the_types_can_fail() -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(groq_type()[0]).validate_python({"model": "m", "messages": [], "reasoning_effort": "minimal"})


@pytest.mark.parametrize("name", ["gpt-5-mini", "gpt-5-2025-08-07", "o4-mini", "o3"])
def test_a_reasoning_model_of_openai_gets_no_temperature_and_its_name_of_max_tokens(
    executor: Executors, name: str
) -> None:
    body, warnings = sent(executor("openai", name), {"messages": [], "max_tokens": 9, "temperature": 0, "seed": 1})
    assert body == {"model": name, "messages": [], "max_completion_tokens": 9, "seed": 1}
    assert warnings == ["body.temperature was dropped: openai has nothing like it"]


def test_other_models_of_openai_get_what_was_written(executor: Executors) -> None:
    written = {"messages": [], "max_tokens": 9, "temperature": 0, "top_k": 3}
    assert sent(executor("openai", "gpt-4o-mini"), written) == ({**written, "model": "gpt-4o-mini"}, [])


def test_the_model_that_a_request_names_decides(executor: Executors) -> None:
    body, _ = sent(executor("openai", "gpt-4o"), {"messages": [], "model": "o3", "max_tokens": 9})
    assert body["max_completion_tokens"] == 9


def test_mistral_has_its_own_names(executor: Executors) -> None:
    body, warnings = sent(executor("mistral"), ROW, stream=True)
    assert body["random_seed"] == 7
    assert body["max_tokens"] == 32
    assert body["messages"][0]["role"] == "system"
    assert "stream_options" not in body
    assert warnings == ["body.user was dropped: mistral has nothing like it"]
    body, _ = sent(executor("mistral"), {**ROW, "stream_options": {"include_usage": True}}, stream=True)
    assert "stream_options" not in body


@pytest.mark.parametrize(("provider", "field"), [(name, each) for name, fields in REFUSED.items() for each in fields])
def test_a_field_that_changes_the_answer_is_refused_by_its_name(executor: Executors, provider: str, field: str) -> None:
    row = {**ROW, field: REFUSED[provider][field]}
    with pytest.raises(InvalidRequest, match=rf"^body\.{field}: {provider} has nothing like it") as raised:
        sent(executor(provider), row)
    assert "drop_unsupported=true" in str(raised.value)
    body, warnings = sent(executor(provider, None, "provider.drop_unsupported=true"), row)
    assert field not in body
    assert f"body.{field} was dropped: {provider} has nothing like it" in warnings


def test_an_effort_that_a_model_lacks_is_sent_as_the_nearest_with_a_warning(executor: Executors) -> None:
    groq = executor("groq", "openai/gpt-oss-120b")
    body, warnings = sent(groq, {"messages": [], "reasoning_effort": "minimal"})
    assert body["reasoning_effort"] == "low"
    assert warnings == ["body.reasoning_effort: 'minimal' was sent as 'low': groq has no 'minimal'"]
    with pytest.raises(InvalidRequest, match="groq has no 'enormous', it takes low, medium, high"):
        sent(groq, {"messages": [], "reasoning_effort": "enormous"})


def test_names_in_messages_are_dropped_where_groq_refuses_them(executor: Executors) -> None:
    row = {"messages": [{"role": "user", "content": "a", "name": "ann"}, {"role": "user", "content": "b"}]}
    body, warnings = sent(executor("groq"), row)
    assert body["messages"] == [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert warnings == ["body.messages.name was dropped: groq has nothing like it"]
    assert row["messages"][0]["name"] == "ann"


def made(**fields: Any) -> FieldMaps:
    return FieldMaps(
        RemoteProviderSpec(kind="remote", name="lab", base_url="http://127.0.0.1:1/v1", fields=FieldsSpec(**fields))
    )


def test_two_fields_that_become_one_must_agree() -> None:
    fields = made(rename={"max_tokens": "max_completion_tokens"}).of("m")
    assert fields is not None
    assert fields.apply({"max_tokens": 5, "max_completion_tokens": 5}, False)[0] == {"max_completion_tokens": 5}
    with pytest.raises(InvalidRequest, match=r"body\.max_tokens: got 5, and body\.max_completion_tokens: got 6"):
        fields.apply({"max_tokens": 5, "max_completion_tokens": 6}, False)


def test_a_model_takes_back_rules_of_its_provider() -> None:
    maps = made(
        rename={"seed": "random_seed"}, drop=("user",), models={"old-*": {"rename": {"seed": None, "user": "who"}}}
    )
    old, new = maps.of("old-1"), maps.of("new")
    assert old is not None
    assert new is not None
    assert old.apply({"seed": 1, "user": "u"}, False) == ({"seed": 1, "who": "u"}, [])
    assert new.apply({"seed": 1}, False) == ({"random_seed": 1}, [])


def test_no_rules_are_no_map() -> None:
    assert made().of("m") is None


def test_a_field_can_not_be_renamed_and_left_out() -> None:
    with pytest.raises(ConfigError, match=r"provider\.fields\.models\.m\*\.rename\.seed: the field is also in drop"):
        made(models={"m*": {"rename": {"seed": "s"}, "drop": ["seed"]}})


@pytest.mark.slow
async def test_one_row_runs_over_all_of_them(
    serve: Callable[..., Awaitable[ScriptedServer]], executor: Executors, tmp_path: Path
) -> None:
    """Each server refuses, as the vendors do, a field that their types lack."""
    for provider in TYPES:
        _, fields = TYPES[provider]()

        async def script(exchange: Exchange, fields: set[str] = fields) -> None:
            unknown = sorted(set(exchange.json) - fields)
            if unknown:
                await exchange.reply(422, {"error": {"message": f"extra inputs are not permitted: {unknown}"}})
            else:
                await exchange.reply(200, completion("Paris"))

        server = await serve(script)
        remote = executor(provider, None, f"provider.base_url={server.url}")
        result = await remote(Request("chat", ROW), Context(EngineRecord(), 0.0))
        assert result.text == "Paris"
