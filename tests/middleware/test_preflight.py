"""Preflight: what can't succeed is refused at once, with its path; what some provider takes is not."""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Request
from engine.core.clock import SystemClock
from engine.core.errors import InferenceError, InvalidRequest, TooLong
from engine.core.resources import Resources
from engine.core.server_info import ServerInfo
from engine.core.virtual_time import VirtualClock
from engine.middleware import parameters, preflight, queue, rate_limit, retry, route
from engine.middleware.layer_context import LayerContext
from engine.middleware.preflight import Preflight, check_body
from engine.schemas import TargetSpec
from engine.schemas.hardware import AutoHardwareSpec
from engine.schemas.model import ModelSpec
from engine.schemas.policy import PolicySpec, PreflightSpec, RateLimitSpec
from engine.schemas.provider import LocalProviderSpec, RemoteProviderSpec
from tests.middleware.chain import Scripted, branch, chain, context, in_virtual_time

TEXT = {"role": "user", "content": "hello"}


class Passed(Exception):
    """Nothing was refused."""


def chat(**body: Any) -> Request:
    return Request("chat", {"messages": [TEXT], **body}, id="r")


def stage(
    kind: str = "remote",
    policy: PolicySpec | None = None,
    primary: bool = True,
    server_info: ServerInfo | None = None,
    **model: Any,
) -> Preflight:
    provider: Any = (
        LocalProviderSpec(kind="local", name="local", default_model="m")
        if kind == "local"
        else RemoteProviderSpec(kind="remote", name="host", base_url="http://127.0.0.1:1/v1")
    )
    target = TargetSpec(
        provider=provider, model=ModelSpec(**{"name": "m", **model}), hardware=AutoHardwareSpec(kind="auto")
    )
    known = server_info or ServerInfo()
    here = LayerContext(
        "t", target, policy or PolicySpec(), Resources(SystemClock()), primary=primary, server_info=known
    )
    layer = preflight.layer(here)
    assert layer is not None
    made = layer.cls(next=Scripted(), **layer.arguments)  # type: ignore[call-arg]
    assert isinstance(made, Preflight)
    return made


@pytest.mark.parametrize(
    ("task", "body", "said"),
    [
        ("response", {}, "body.input: expected a text or a list of items"),
        ("response", {"input": []}, "body.input: expected a text or a list of items"),
        ("response", {"input": ["hello"]}, "body.input[0]: expected an object with role and content, got str"),
        ("moderation", {"input": ""}, "body.input: expected a text, a list of texts, or a list of parts"),
        ("image", {"prompt": ""}, "body.prompt: expected a text that is not empty"),
        ("image-edit", {"prompt": "a hat"}, "body.image: expected a picture"),
        ("image-edit", {"image": "a.png"}, "body.prompt: expected a text that is not empty"),
        ("speech", {"input": ["hello"]}, "body.input: expected a text that is not empty, got list"),
        ("transcription", {}, "body.file: expected a recording"),
        ("audio-translation", {"file": ""}, "body.file: expected a recording"),
        ("chat", {}, "body.messages: expected a list with at least one message"),
        ("token-count", {}, "body.messages: expected a list with at least one message"),
        ("chat", {"messages": []}, "body.messages: expected a list with at least one message"),
        ("chat", {"messages": "hello"}, "body.messages: expected a list"),
        ("chat", {"messages": [TEXT, "hello"]}, "body.messages[1]: expected an object with role and content, got str"),
        ("chat", {"messages": [{"content": "hello"}]}, "body.messages[0].role: expected a role"),
        ("chat", {"messages": [{"role": 1, "content": "hello"}]}, "body.messages[0].role: expected a role"),
        ("chat", {"messages": [{"role": "user"}]}, "body.messages[0]: got no content"),
        ("chat", {"messages": [{"role": "user", "content": None, "name": "ann"}]}, "body.messages[0]: got no content"),
        ("chat", {"messages": [{"role": "assistant"}]}, "body.messages[0]: got no content"),
        ("chat", {"messages": [{"role": "user", "content": 5}]}, "body.messages[0].content: expected text or a list"),
        ("chat", {"messages": [{"role": "user", "content": [5]}]}, "body.messages[0].content[0]: expected a part"),
        ("completion", {"prompt": 5}, "body.prompt: expected a text or a list of texts, got 5"),
        ("completion", {"prompt": []}, "body.prompt: the list is empty"),
        ("embedding", {}, "body.input: expected a text or a list of texts"),
        ("embedding", {"input": ""}, "body.input: expected a text or a list of texts"),
        ("embedding", {"input": []}, "body.input: the list is empty"),
        ("embedding", {"input": True}, "body.input: expected a text or a list of texts, got True"),
        ("chat", {"messages": [TEXT], "max_tokens": "many"}, "body.max_tokens: expected a number, got str"),
        ("chat", {"messages": [TEXT], "max_tokens": 1.5}, "body.max_tokens: expected a whole number, got 1.5"),
        ("chat", {"messages": [TEXT], "max_completion_tokens": -2}, "body.max_completion_tokens: expected a whole"),
        ("chat", {"messages": [TEXT], "max_tokens": True}, "body.max_tokens: expected a number, got True"),
        ("chat", {"messages": [TEXT], "frequency_penalty": "a"}, "body.frequency_penalty: expected a number, got str"),
        ("chat", {"messages": [TEXT], "presence_penalty": "a"}, "body.presence_penalty: expected a number, got str"),
        ("completion", {"best_of": 0}, "body.best_of: expected a whole number of at least 1, got 0"),
        ("rerank", {"documents": ["a"]}, "body.query: expected a text that is not empty"),
        ("rerank", {"query": "", "documents": ["a"]}, "body.query: expected a text that is not empty"),
        ("rerank", {"query": 5, "documents": ["a"]}, "body.query: expected a text that is not empty"),
        ("rerank", {"query": "q"}, "body.documents: expected a list with at least one text"),
        ("rerank", {"query": "q", "documents": []}, "body.documents: expected a list with at least one text"),
        ("rerank", {"query": "q", "documents": "a"}, "body.documents: expected a list with at least one text"),
        ("rerank", {"query": "q", "documents": ["a", 5]}, 'body.documents[1]: expected a text, or {"text": …}'),
        ("rerank", {"query": "q", "documents": [{"txt": "a"}]}, 'body.documents[0]: expected a text, or {"text": …}'),
        ("chat", {"messages": [TEXT], "n": 0}, "body.n: expected a whole number of at least 1, got 0"),
        ("chat", {"messages": [TEXT], "n": 1.5}, "body.n: expected a whole number, got 1.5"),
        ("chat", {"messages": [TEXT], "n": "two"}, "body.n: expected a number, got str"),
        ("chat", {"messages": [TEXT], "seed": 1.5}, "body.seed: expected a whole number, got 1.5"),
        ("chat", {"messages": [TEXT], "temperature": "hot"}, "body.temperature: expected a number, got str"),
        ("chat", {"messages": [TEXT], "temperature": float("nan")}, "body.temperature: nan can't be written in JSON"),
        ("chat", {"messages": [TEXT], "top_p": float("inf")}, "body.top_p: inf can't be written in JSON"),
        ("chat", {"messages": [TEXT], "seed": float("inf")}, "body.seed: inf can't be written in JSON"),
        ("chat", {"messages": [TEXT], "stop": 5}, "body.stop: expected a text or a list of texts, got 5"),
        ("chat", {"messages": [TEXT], "tools": {}}, "body.tools: expected a list, got dict"),
        ("response", {"input": 5}, "body.input: expected a text or a list of items, got 5"),
        ("response", {"input": [{"type": "item_reference"}, {"role": ""}]}, "body.input[1].role: expected a role"),
        ("moderation", {}, "body.input: expected a text, a list of texts, or a list of parts"),
        ("moderation", {"input": {"text": "a"}}, "body.input: expected a text, a list of texts, or a list of parts"),
        ("image", {}, "body.prompt: expected a text that is not empty, got None"),
        ("image", {"prompt": ["a cat"]}, "body.prompt: expected a text that is not empty, got list"),
        ("speech", {}, "body.input: expected a text that is not empty, got None"),
        ("speech", {"input": 5}, "body.input: expected a text that is not empty, got 5"),
    ],
)  # fmt: skip
def test_a_body_that_cant_be_right_is_refused_with_its_path(task: str, body: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        stage().check(Request(task, body))
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("chat", {"messages": [TEXT], "temperature": 0, "max_tokens": None, "n": 1, "seed": -1, "stop": ["a"]}),
        ("chat", {"messages": [{"role": "context", "content": "vLLM and llama.cpp take any role"}]}),
        ("chat", {"messages": [{"role": "developer", "content": ""}]}),
        ("chat", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
        ("chat", {"messages": [{"role": "user", "content": ["vLLM takes texts as parts"]}]}),
        ("chat", {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}),
        ("chat", {"messages": [{"role": "assistant", "content": None}]}),
        ("chat", {"messages": [{"role": "assistant", "audio": {"id": "x"}}]}),
        ("chat", {"messages": [{"role": "tool", "tool_call_id": "x"}]}),
        ("chat", {"messages": (TEXT,)}),
        ("chat", {"messages": [TEXT], "max_tokens": -1}),
        ("chat", {"messages": [TEXT], "max_tokens": 10.0, "temperature": -1, "top_p": 5}),
        ("completion", {"prompt": "hello", "echo": True, "max_tokens": 0}),
        ("completion", {"prompt": ""}),
        ("completion", {}),
        ("completion", {"prompt": ["a", "b"]}),
        ("completion", {"prompt": [1, 2, 3]}),
        ("completion", {"prompt": [[1, 2], [3]]}),
        ("completion", {"prompt": {"prompt_string": "llama.cpp", "multimodal_data": []}}),
        ("embedding", {"input": ["", "vLLM takes an empty text among others"]}),
        ("embedding", {"input": [{"text": "jina"}]}),
        ("embedding", {"messages": [TEXT]}),
        ("rerank", {"query": "q", "documents": ("a", {"text": "b", "title": "c"})}),
        ("response", {"input": "hello", "max_output_tokens": 5}),
        ("response", {"input": [TEXT, {"type": "function_call_output", "call_id": "1", "output": "x"}]}),
        ("response", {"prompt": {"id": "pmpt_1"}}),
        ("moderation", {"input": [{"type": "image_url", "image_url": {"url": "x"}}]}),
        ("image-edit", {"image": ["a.png"], "prompt": "a hat"}),
        ("transcription", {"url": "https://example.com/a.wav"}),
        ("summarization", {"inputs": "hello"}),
        ("response", {"input": (TEXT, {"type": "function_call", "name": "f"}, {"type": "item_reference", "id": "x"})}),
        ("response", {"conversation": "conv_1"}),
        ("response", {"previous_response_id": "resp_1"}),
        ("moderation", {"input": "hello"}),
        ("moderation", {"input": ["a", "b"]}),
        ("moderation", {"input": ({"type": "text", "text": "a"},)}),
        ("image", {"prompt": "a cat"}),
        ("image-edit", {"prompt": "with a hat", "image": "cat.png"}),
        ("speech", {"input": "hello", "voice": "alloy"}),
        ("transcription", {"file": "hello.wav"}),
        ("transcription", {"url": "http://127.0.0.1:1/hello.wav"}),
        ("audio-translation", {"file": "hello.wav"}),
    ],
)
def test_what_some_provider_takes_is_let_through(task: str, body: dict[str, Any]) -> None:
    stage(context_length=100).check(Request(task, body))


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine makes such bodies slowly
@given(
    st.dictionaries(
        st.sampled_from(["messages", "prompt", "input", "max_tokens", "temperature", "n", "stop", "seed", "tools"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["role", "content", "text"]), inner, max_size=3)
            ),
            max_leaves=8,
        ),
    ),
    st.sampled_from(["chat", "completion", "embedding"]),
)
def test_whatever_the_body_it_passes_or_is_refused_in_words(body: dict[str, Any], task: str) -> None:
    made = stage(context_length=2)
    with pytest.raises((InvalidRequest, TooLong, Passed), match=r"^(body\.|passed)"):
        made.check(Request(task, body))
        raise Passed("passed")


def test_a_users_text_does_not_stand_in_the_error() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_body("chat", {"messages": ["my secret"]})
    assert "secret" not in str(caught.value)


# -- the model ----------------------------------------------------------------------------------------------------


def test_a_task_that_the_model_does_not_do_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"^task: 'm' is not for chat; it does: embedding\. Next: choose another"):
        stage(tasks=("embedding",)).check(chat())
    stage(tasks=("embedding", "chat")).check(chat())


@pytest.mark.parametrize(
    ("task", "fits", "body"),
    [
        ("chat", True, {"messages": [{"role": "user", "content": "x" * 120}]}),
        ("chat", False, {"messages": [{"role": "user", "content": "x" * 60}, {"role": "user", "content": "x" * 61}]}),
        ("chat", False, {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 121}]}]}),
        ("completion", False, {"prompt": "x" * 121}),
        ("completion", True, {"prompt": ["x" * 120, "x" * 120]}),
        ("completion", False, {"prompt": ["x", "x" * 121]}),
        ("completion", True, {"prompt": list(range(10))}),
        ("completion", False, {"prompt": list(range(11))}),
        ("embedding", False, {"input": [[1], list(range(11))]}),
        ("embedding", True, {"input": ["x" * 120] * 50}),
        ("embedding", True, {"input": "x" * 121, "truncate_prompt_tokens": 10}),
        ("embedding", True, {"input": "x" * 121, "truncate": "END"}),
        ("embedding", True, {"input": "x" * 121, "truncation": True}),
        ("chat", False, {"messages": [{"role": "a", "content": "x" * 121}, {"role": "a", "content": ["y"]}]}),
        ("chat", False, {"messages": [{"role": "a", "content": ["x" * 100, {"type": "text", "text": "x" * 21}]}]}),
        ("chat", True, {"messages": [{"role": "a", "content": ["x" * 100, {"type": "text", "text": "x" * 20}]}]}),
        ("chat", True, {"messages": [{"role": "a", "content": ["x" * 120, {"type": "image_url"}]}]}),
        ("chat", True, {"messages": [{"role": "a", "content": "x" * 120}, {"role": "assistant", "content": None}]}),
        ("rerank", False, {"query": "x" * 21, "documents": ["y", "x" * 100]}),
        ("rerank", False, {"query": "x" * 21, "documents": [{"text": "x" * 100}, "y"]}),
        ("rerank", True, {"query": "x" * 20, "documents": ["x" * 100] * 5}),
        ("response", True, {"input": "x" * 120}),
        ("response", False, {"input": "x" * 121}),
        ("response", True, {"input": [{"role": "user", "content": "x" * 120}, {"type": "function_call"}]}),
        ("response", False, {"input": [{"role": "user", "content": "x" * 60}, {"role": "user", "content": "x" * 61}]}),
    ],
)
def test_a_prompt_is_too_long_only_when_it_is_so_for_certain(task: str, fits: bool, body: dict[str, Any]) -> None:
    made = stage(context_length=10)
    if fits:
        made.check(Request(task, body))
    else:
        with pytest.raises(TooLong, match=r"'m' has room for 10 \(model.context_length\). Next: shorten it"):
            made.check(Request(task, body))


@pytest.mark.parametrize(
    ("task", "body", "said"),
    [
        ("embedding", {"input": "x" * 13}, "body.input: 13 characters, 1 tokens or more, and"),
        ("completion", {"prompt": [1, 2]}, "body.prompt: 2 tokens and"),
        ("chat", {"messages": [{"role": "a", "content": "x" * 13}]}, "body.messages: 13 characters"),
    ],
)
def test_it_says_how_long_a_prompt_is_and_where_it_stands(task: str, body: dict[str, Any], said: str) -> None:
    with pytest.raises(TooLong) as caught:
        stage(context_length=1).check(Request(task, body))
    assert str(caught.value).startswith(said)


def test_no_prompt_is_no_length() -> None:
    for task, body in (("completion", {}), ("embedding", {"messages": [TEXT]}), ("completion", {"prompt": [""]})):
        assert check_body(task, body) == 0
    assert check_body("completion", {"prompt": {"prompt_string": "a"}}) == 0
    assert check_body("chat", {"messages": [{"role": "assistant", "content": None}, TEXT]}) == 5
    assert check_body("response", {"previous_response_id": "resp_1"}) == 0
    assert check_body("rerank", {"query": "q", "documents": [""]}) == 1


@pytest.mark.parametrize(
    ("task", "body"),
    [
        ("moderation", {"input": "hello"}),
        ("image", {"prompt": "a cat"}),
        ("speech", {"input": "hello"}),
        ("transcription", {"file": "hello.wav"}),
        ("fill-mask", {"inputs": "a [MASK]"}),
    ],
)
def test_what_need_not_fit_a_context_has_no_length(task: str, body: dict[str, Any]) -> None:
    assert check_body(task, body) == 0


def test_what_it_costs_at_the_rate_limit_is_told() -> None:
    policy = PolicySpec(rate_limit=RateLimitSpec(enabled=True, tokens_per_min=1000, output_tokens_default=7))
    asked = chat(messages=[{"role": "user", "content": "x" * 40}])
    assert stage(policy=policy).check(asked) == (1.0, 18.0, 11.0, 7.0)
    asked = chat(messages=({"role": "user", "content": "x" * 40},))
    assert stage(policy=policy).check(asked) == (1.0, 18.0, 11.0, 7.0)
    asked = Request("completion", {"prompt": ["x" * 40, "y" * 40]})
    assert stage(policy=policy).check(asked) == (1.0, 28.0, 21.0, 7.0)
    assert stage().check(chat()) is None


def test_the_characters_of_a_token_are_a_knob() -> None:
    policy = PolicySpec(preflight=PreflightSpec(max_chars_per_token=2))
    with pytest.raises(TooLong, match=r"^body.prompt: 21 characters, 10 tokens or more, and 'm' has room for 10"):
        stage(policy=policy, context_length=10).check(Request("completion", {"prompt": "x" * 21}))


def test_an_answer_longer_than_the_context_is_refused() -> None:
    stage(context_length=100).check(chat(max_tokens=100))
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        with pytest.raises(TooLong, match=rf"^body.{name}: 101 is more than the 100 tokens that 'm' has"):
            stage(context_length=100).check(chat(**{name: 101}))


def test_a_model_in_this_process_cuts_what_is_too_long_itself() -> None:
    stage("local", context_length=10).check(chat(max_tokens=1000))
    stage("local", context_length=10).check(Request("embedding", {"input": "x" * 1000}))
    with pytest.raises(TooLong, match=r"^body.messages"):
        stage("local", context_length=10).check(chat(messages=[{"role": "user", "content": "x" * 121}]))


def test_a_task_that_the_server_says_it_does_not_do_is_refused_unless_the_configuration_names_it() -> None:
    said = ServerInfo(tasks=frozenset({"embedding", "rerank"}))
    with pytest.raises(InvalidRequest, match="as its server says; it does: embedding, rerank"):
        stage(server_info=said).check(chat())
    stage(server_info=said).check(Request("embedding", {"input": "hello"}))
    stage(server_info=said, tasks=("chat",)).check(chat())


def test_the_servers_context_counts_where_the_configuration_says_nothing() -> None:
    said = ServerInfo(context_length=10)
    with pytest.raises(TooLong, match=r"'m' has room for 10 \(as its server says\)"):
        stage(server_info=said).check(Request("completion", {"prompt": "x" * 121}))
    with pytest.raises(TooLong, match=r"more than the 10 tokens .* \(as its server says\)"):
        stage(server_info=said).check(chat(max_tokens=11))
    stage(server_info=said, context_length=20).check(Request("completion", {"prompt": "x" * 121}))


def test_a_prompt_may_be_no_longer_than_the_server_takes_and_an_answer_as_long_as_the_context() -> None:
    said = ServerInfo(context_length=100, max_prompt_tokens=10)
    with pytest.raises(TooLong, match="'m' has room for 10 "):
        stage(server_info=said).check(Request("completion", {"prompt": "x" * 121}))
    stage(server_info=said).check(Request("completion", {"prompt": "x" * 120, "max_tokens": 100}))
    stage(server_info=said, context_length=100).check(Request("completion", {"prompt": "x" * 121}))


def test_a_server_that_cuts_prompts_refuses_none() -> None:
    stage(server_info=ServerInfo(context_length=10, cuts=True)).check(Request("completion", {"prompt": "x" * 121}))


@pytest.mark.parametrize(
    ("primary", "pin", "names", "refused"),
    [
        (True, False, "another", False),
        (True, False, "m", True),
        (True, False, "at-host", True),
        (True, True, "another", True),
        (False, False, "another", True),
    ],
)
def test_of_a_model_that_the_request_names_itself_nothing_is_known(
    primary: bool, pin: bool, names: str, refused: bool
) -> None:
    made = stage(primary=primary, pin=pin, ids={"host": "at-host"}, tasks=("embedding",))
    if refused:
        with pytest.raises(InvalidRequest, match="is not for chat"):
            made.check(chat(model=names))
    else:
        made.check(chat(model=names))


# -- the rate limit and the chain ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "body"),
    [({"output_tokens_per_min": 100}, {"max_tokens": 101}), ({"input_tokens_per_min": 10}, {"user": "x"})],
)
def test_what_the_rate_limit_can_never_pass_is_refused_in_its_words(
    limits: dict[str, float], body: dict[str, Any]
) -> None:
    @in_virtual_time
    async def scenario(clock: VirtualClock) -> None:
        policy = PolicySpec(rate_limit=RateLimitSpec(enabled=True, **limits))
        here = branch(clock, policy)
        asked = chat(**body, messages=[{"role": "user", "content": "x" * 40}])
        with pytest.raises(TooLong) as before:
            stage(policy=policy).check(asked)
        with pytest.raises(TooLong) as after:
            await chain([route, rate_limit], here, Scripted())(asked, context(clock))
        assert str(before.value) == str(after.value)

    scenario()


def test_a_limit_that_is_off_refuses_nothing() -> None:
    policy = PolicySpec(rate_limit=RateLimitSpec(enabled=False, output_tokens_per_min=100))
    stage(policy=policy).check(chat(max_tokens=101))


def test_the_models_own_parameters_count_for_the_rate_limit() -> None:
    policy = PolicySpec(rate_limit=RateLimitSpec(enabled=True, output_tokens_per_min=1000))
    stage(policy=policy, parameters={"max_tokens": 1000}).check(chat())
    with pytest.raises(TooLong, match="output_tokens_per_min"):
        stage(policy=policy, parameters={"max_tokens": 1001}).check(chat())


@in_virtual_time
async def test_what_is_refused_waits_for_nothing_and_is_tried_once(clock: VirtualClock) -> None:
    here = branch(clock, PolicySpec())
    executor = Scripted(60.0)
    made = chain([preflight, retry, queue, route, parameters], here, executor)
    gate = here.resources.get(("queue", "t"), lambda: None)
    while gate.active < here.policy.queue.concurrency:  # type: ignore[attr-defined]
        await gate.acquire(context(clock))  # type: ignore[attr-defined]
    with pytest.raises(InvalidRequest):
        await made(Request("chat", {"messages": []}), context(clock))
    assert clock.monotonic() == 0.0
    assert executor.calls == 0


@in_virtual_time
async def test_what_is_right_goes_on_as_it_is(clock: VirtualClock) -> None:
    asked = chat(temperature=0)
    seen: list[Request] = []

    async def executor(request: Request, context: Any) -> Any:
        seen.append(request)
        await asyncio.sleep(0)

    await chain([preflight], branch(clock, PolicySpec()), executor)(asked, context(clock))
    assert seen == [asked]
    assert seen[0] is asked


def test_every_refusal_is_one_that_no_retry_follows() -> None:
    for error in (InvalidRequest, TooLong):
        assert issubclass(error, InferenceError)
        assert not error.retryable


def test_the_plan_says_what_is_known() -> None:
    target = TargetSpec(
        provider=RemoteProviderSpec(kind="remote", name="host", base_url="http://127.0.0.1:1/v1"),
        model=ModelSpec(name="m", tasks=("chat",), context_length=10),
        hardware=AutoHardwareSpec(kind="auto"),
    )
    policy = PolicySpec(rate_limit=RateLimitSpec(enabled=True, requests_per_min=5))
    layer = preflight.layer(LayerContext("t", target, policy, Resources(SystemClock())))
    assert layer is not None
    assert layer.settings == "form of the body tasks=chat context_length=10 rate_limit"
    several = ModelSpec(name="m", tasks=("chat", "embedding"))
    for limits in (RateLimitSpec(enabled=True), RateLimitSpec(enabled=False, requests_per_min=5)):
        here = LayerContext(
            "t", target.model_copy(update={"model": several}), PolicySpec(rate_limit=limits), Resources()
        )
        layer = preflight.layer(here)
        assert layer is not None
        assert layer.settings == "form of the body tasks=chat,embedding"
    off = PolicySpec(preflight=PreflightSpec(enabled=False))
    assert preflight.layer(LayerContext("t", target, off, Resources(SystemClock()))) is None
