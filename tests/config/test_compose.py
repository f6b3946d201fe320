"""Composition: what people type becomes a run spec, or a line that says what to type instead."""

from pathlib import Path

import pytest

from engine.config.compose import choices, compose, expand
from engine.core.errors import ConfigError
from engine.schemas import RunSpec


def spec(*overrides: str, config_dir: Path | None = None) -> RunSpec:
    return compose(list(overrides), config_dir).spec


def refusal(*overrides: str, config_dir: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(list(overrides), config_dir)
    return str(caught.value)


def test_without_a_word_the_default_model_answers_the_sample_in_this_process() -> None:
    made = spec()
    assert (made.provider.kind, made.hardware.kind, made.workload.kind) == ("local", "auto", "sample")
    assert made.model.name == "smollm2-135m"
    assert [source.kind for source in made.model.sources] == ["hub", "package"]


def test_a_remote_provider_needs_nothing_more_than_its_name() -> None:
    made = spec("provider=groq", "hardware=cuda")
    assert made.provider.name == "groq"
    assert made.targets[0].name == "groq/llama-3.1-8b-instant"
    assert made.hardware.kind == "cuda"


@pytest.mark.parametrize(
    ("provider", "id"),
    [("groq", "llama-3.1-8b-instant"), ("ollama", "llama3.1:8b"), ("vllm", "meta-llama/Llama-3.1-8B-Instruct")],
)
def test_one_model_has_its_id_at_each_provider(provider: str, id: str) -> None:
    assert spec(f"provider={provider}", "model=llama-3.1-8b").targets[0].model_id == id


def test_a_model_without_an_id_at_the_provider_is_refused_with_the_ones_it_has() -> None:
    text = refusal("provider=openai", "model=llama-3.1-8b")
    assert "model.ids.openai=ID" in text
    assert "groq" in text


def test_any_model_of_a_remote_provider() -> None:
    assert spec("provider=openai", "model=remote", "model.name=gpt-x").targets[0].model_id == "gpt-x"
    assert "model.name" in refusal("provider=openai", "model=remote")


@pytest.mark.parametrize("policy", ["default", "interactive", "throughput", "resilient", "off"])
def test_every_preset_is_valid_and_its_knobs_can_be_set(policy: str) -> None:
    made = spec(
        "provider=simulated",
        f"policy={policy}",
        "policy.queue.size=7",
        "policy.queue.concurrency=3",
        "policy.retry.max_retries=1",
        "policy.retry.initial_delay_s=0.1",
        "policy.retry.multiplier=3",
        "policy.retry.max_delay_s=9",
        "policy.timeout.attempt_s=5",
        "policy.timeout.first_token_s=4",
        "policy.timeout.idle_s=3",
        "policy.deadline.total_s=60",
        "policy.breaker.failure_threshold=0.2",
        "policy.breaker.min_calls=2",
        "policy.breaker.open_s=1",
        "policy.batch.max_size=4",
        "policy.batch.max_wait_s=0.1",
    ).policy
    assert (made.queue.size, made.queue.concurrency, made.retry.max_retries) == (7, 3, 1)
    assert (made.timeout.idle_s, made.deadline.total_s, made.breaker.open_s) == (3, 60, 1)
    assert (made.batch.max_size, made.batch.max_wait_s) == (4, 0.1)


def test_a_sub_group_can_be_chosen_alone() -> None:
    made = spec("provider=simulated", "policy/breaker=off", "policy/queue=interactive").policy
    assert made.breaker.enabled is False
    assert made.queue.on_full == "reject"


def test_fallbacks_take_names_and_mappings_and_do_not_inherit_the_primarys_overrides() -> None:
    made = spec(
        "provider=simulated",
        "provider.latency_s=5",
        "fallbacks=[{provider:ollama,model:llama-3.1-8b},{provider:{use:simulated,latency_s:1},model:simulated},{provider:local}]",
    )
    first, second, third = made.fallbacks
    assert first.name == "ollama/llama3.1:8b"
    assert second.provider.model_dump()["latency_s"] == 1
    assert third.model.name == "smollm2-135m"
    assert made.provider.model_dump()["latency_s"] == 5


def test_a_fallback_takes_a_url_and_a_model_of_its_own() -> None:
    made = spec(
        "provider=simulated",
        'fallbacks=[{provider:{use:openai,base_url:"http://127.0.0.1:9/v1"},model:{use:remote,name:m2}}]',
    )
    assert made.fallbacks[0].provider.model_dump()["base_url"] == "http://127.0.0.1:9/v1"
    assert made.fallbacks[0].model_id == "m2"


def test_the_environments_url_is_used_unless_an_override_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://from.env/v1")
    assert spec("provider=openai").provider.model_dump()["base_url"] == "http://from.env/v1"
    assert (
        spec("provider=openai", "provider.base_url=http://typed/v1").provider.model_dump()["base_url"]
        == "http://typed/v1"
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["provider=grok"], ["provider=grok", "groq"]),
        (["policy=interactiv"], ["interactive"]),
        (["model=gpt-9"], ["model=remote model.name=gpt-9"]),
        (["policy.queue.sise=5"], ["policy.queue.sise", "policy.queue.size"]),
        (["+typo=1"], ["typo", "provider"]),
        (["policy/quee=default"], ["policy/queue"]),
        (["policy.queue.size=many"], ["policy.queue.size='many'", "integer"]),
        (["policy.queue.size=-1"], ["policy.queue.size=-1", "greater than or equal to 0"]),
        (["provider=simulated,groq"], ["add -m"]),
        (["workload=jsonl"], ["workload.path", "needs a value"]),
        (["provider.kind=foo", "provider=simulated"], ["provider.kind", "simulated"]),
        (["provider=simulated", "provider.base_url=http://x"], ["provider.base_url", "where its kind is remote"]),
        (["provider=simulated", "provider.faults=[{kind: server, rte: 1}]"], ["provider.faults[0].rte", "mean rate?"]),
        (["fallbacks=[{provider: {use: groq, latency_s: 1}}]"], ["fallbacks[0].provider.latency_s", "simulated"]),
        (["fallbacks=[{provider:grok}]"], ["fallbacks[0].provider", "groq"]),
        (["fallbacks=[groq]"], ["fallbacks[0]", "provider"]),
        (["provider=[a"], ["provider", "quote"]),
        (["output.dir=123"], ["output.dir", "quote"]),
    ],
)
def test_what_is_wrong_is_said_in_a_line_with_the_nearest_right_one(overrides: list[str], expected: list[str]) -> None:
    text = refusal(*overrides)
    assert all(part in text for part in expected), text
    assert len(text.splitlines()) <= 3


@pytest.mark.parametrize(
    "override",
    [
        "provider.api_key=abcdefgh12345678",
        "provider.headers.Authorization=Bearer abcdefgh12345678",
        "provider.base_url=http://user:hunter2hunter2@host/v1",
        "model.name=sk-abcdefghijklmnopqrstuvwxyz123456",
        "provider.credential.env=[gsk_abcdefghijklmnopqrstuvwxyz]",
        'fallbacks=[{provider:{use:openai,api_key:"abcdefgh12345678"}}]',
        "provider.headers.X-Api-Key=abcdefgh12345678",
        "provider.base_url=http://host/v1?api_key=abcdefgh12345678",
        "sk-abcdefghijklmnopqrstuvwxyz123456=1",
    ],
)
def test_a_secret_typed_as_a_value_is_refused_and_not_shown(override: str) -> None:
    text = refusal("provider=openai", override)
    assert "secret" in text
    assert "abcdefgh" not in text
    assert "hunter2" not in text


def test_a_secret_that_an_interpolation_brings_in_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "a-value-of-no-known-shape")
    text = refusal("provider=openai", "model=remote", "model.name=${oc.env:MY_API_KEY}")
    assert "secret" in text
    assert "no-known-shape" not in text


@pytest.mark.parametrize(
    "override",
    ["provider.headers.X-A=Token ${oc.env:MY_API_KEY}", "workload.parameters.user=x-a-value-of-no-known-shape"],
)
def test_a_secret_of_the_environment_inside_a_value_is_refused(override: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "a-value-of-no-known-shape")
    text = refusal("provider=openai", override)
    assert "secret" in text
    assert "no-known-shape" not in text


def test_a_secret_among_the_choices_of_a_sweep_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        expand(["provider.base_url=http://a,sk-abcdefghijklmnopqrstuvwxyz123456"])
    assert "secret" in str(caught.value)
    assert "abcdefgh" not in str(caught.value)


def test_the_choices_of_a_cell_are_plain_text() -> None:
    cells = expand(["workload.path='a,b.jsonl',my file.jsonl", "seed=1"])
    assert [choices(cell) for cell in cells] == [
        {"workload.path": "a,b.jsonl", "seed": "1"},
        {"workload.path": "my file.jsonl", "seed": "1"},
    ]


def test_a_dot_for_the_slash_of_a_sub_group_is_told_so() -> None:
    assert "policy/queue=off" in refusal("provider=simulated", "policy.queue=off")
    assert spec("provider=simulated", "policy.queue={size: 5}").policy.queue.size == 5


@pytest.mark.parametrize("path", ["~/runs/x", "a=b/c", "it's", "https://host/v1?a=b&c=d"])
def test_plain_text_needs_no_quotes_where_it_can_mean_nothing_else(path: str) -> None:
    assert spec("provider=simulated", f"output.dir={path}").output.dir == path


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.yaml", "foo: [\n", "config.yaml:2: not valid YAML"),
        ("config.yaml", "- a\n", "config: "),
        ("config.yaml", "defaults: []\n", "provider: not a mapping"),
        ("provider/mine.yaml", "- a\n", "provider: not a mapping"),
        ("provider/mine.yaml", "just text\n", "provider: not a mapping"),
        ("provider/mine.yaml", "name: x\n", "provider: not a mapping with a `kind`"),
        ("provider/mine.yaml", "kind: grok\n", "provider.kind: got grok; expected a kind of provider: one of:"),
        ("provider/mine.yaml", "kind: simulated\nname: ${nowhere}\n", "Interpolation key 'nowhere' not found"),
        ("provider/mine.yaml", "kind: local\ndefault_model: sk-abcdefghijklmnopqrst\n", "looks like a secret"),
    ],
)
def test_a_broken_file_of_a_config_repo_is_said_in_its_own_words(
    file: str, content: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "provider").mkdir()
    (tmp_path / file).write_text(content)
    text = refusal(*(["provider=mine"] if file.startswith("provider") else []), config_dir=tmp_path)
    assert said in text
    assert "abcdefgh" not in text


def test_a_config_repo_adds_options_and_overrides_ours(tmp_path: Path) -> None:
    (tmp_path / "provider").mkdir()
    (tmp_path / "provider" / "mine.yaml").write_text("kind: simulated\nname: mine\n")
    (tmp_path / "provider" / "simulated.yaml").write_text("kind: simulated\nname: simulated\nlatency_s: 9\n")
    assert spec("provider=mine", config_dir=tmp_path).provider.name == "mine"
    assert spec("provider=simulated", config_dir=tmp_path).provider.model_dump()["latency_s"] == 9
    made = compose(["provider=mine"], tmp_path)
    assert [source.origin for source in made.sources] == ["--config-dir", "engine"]


def test_hydras_searchpath_adds_options(tmp_path: Path) -> None:
    (tmp_path / "provider").mkdir()
    (tmp_path / "provider" / "mine.yaml").write_text("kind: simulated\nname: mine\n")
    made = compose([f"hydra.searchpath=[{tmp_path}]", "provider=mine"])
    assert made.spec.provider.name == "mine"
    assert made.sources[-1].origin == "hydra.searchpath"


def test_a_config_repo_that_is_not_there_or_not_yaml_is_said_so(tmp_path: Path) -> None:
    assert "not a folder" in refusal("provider=simulated", config_dir=tmp_path / "none")
    (tmp_path / "provider").mkdir()
    (tmp_path / "provider" / "broken.yaml").write_text("kind: [\n")
    assert refusal("provider=broken", config_dir=tmp_path).startswith("config: ")


def test_a_sweep_is_the_product_of_its_choices_in_the_order_as_typed() -> None:
    cells = expand(["provider=a,b", "seed=3", "policy.queue.size=10,100"])
    assert cells == [
        [f"provider={provider}", "seed=3", f"policy.queue.size={size}"] for provider in "ab" for size in (10, 100)
    ]


def test_what_a_run_wrote_down_is_the_same_spec_again() -> None:
    made = spec("provider=simulated", "fallbacks=[{provider:simulated}]", "policy=resilient")
    assert RunSpec.model_validate(made.model_dump(mode="json")) == made


def test_a_fallback_that_names_no_hardware_runs_on_the_runs_own() -> None:
    made = spec("provider=groq", "hardware=cuda", "hardware.device=1", "fallbacks=[{provider:local}]")
    assert made.fallbacks[0].hardware == made.hardware
    other = spec("provider=groq", "hardware=cuda", "fallbacks=[{provider:local,hardware:cpu}]")
    assert other.fallbacks[0].hardware.kind == "cpu"
