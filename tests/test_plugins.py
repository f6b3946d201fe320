"""Each port, through a throw-away distribution: examples/plugin, with its metadata on the module path."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers.replies import completion
from tests.servers.scripted import Exchange, ScriptedServer

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "examples" / "plugin"
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow


def distribution(folder: Path, name: str, groups: dict[str, dict[str, str]]) -> None:
    """Writes the metadata of an installed distribution."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [
        line
        for group, kinds in groups.items()
        for line in (f"[{group}]", *(f"{kind} = {where}" for kind, where in kinds.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    distribution(folder, project["name"], project["entry-points"])
    return folder


@pytest.fixture
def run(site: Path, tmp_path: Path) -> Run:
    """Runs the command line with the plug-in installed, in an empty directory."""

    def engine(*words: str, site: Path = site, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.endswith(("_KEY", "_TOKEN"))}
        paths = os.pathsep.join(map(str, (ROOT, PLUGIN, site)))
        environment |= {"PYTHONPATH": paths, "HOME": str(tmp_path)} | (env or {})
        options = [] if words[0] in ("plugins", "runs") else ["--config-dir", str(PLUGIN / "conf")]
        command = [sys.executable, "-m", "engine", *options, *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    return engine


def results(tmp_path: Path) -> list[dict[str, Any]]:
    (file,) = tmp_path.glob("outputs/*/results.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def answers(tmp_path: Path) -> list[str]:
    return [line["response"]["body"]["choices"][0]["message"]["content"] for line in results(tmp_path)]


def test_an_executor_and_a_workload_answer(run: Run, tmp_path: Path) -> None:
    done = run("provider=echo", "provider.shout=true", "workload=words", "workload.words=[red,green,blue]")
    assert done.returncode == 0, done.stderr
    assert answers(tmp_path) == ["SAY RED.", "SAY GREEN.", "SAY BLUE."]
    assert results(tmp_path)[0]["engine"]["target"] == "echo/parrot"


def test_a_stage_joins_the_chain_where_its_constraints_say(run: Run, tmp_path: Path) -> None:
    planned = run("plan", "provider=simulated", "policy.stamp.text=seen")
    assert planned.returncode == 0, planned.stderr
    chain = [line.split()[0] for line in planned.stdout.partition("\ntargets\n")[0].splitlines()[1:]]
    assert chain.index("queue") < chain.index("stamp") < chain.index("breaker")
    assert "text=seen" in planned.stdout
    done = run("provider=simulated", "policy.stamp.text=seen")
    assert done.returncode == 0, done.stderr
    assert all(line["engine"]["warnings"] == ["seen"] for line in results(tmp_path))
    (metrics,) = tmp_path.glob("outputs/*/metrics.json")
    assert json.loads(metrics.read_text())["stages"]["stamp"] == [{"target": "simulated/simulated", "stamps_total": 8}]


def test_a_run_with_a_stage_is_resumed_from_its_spec(run: Run, tmp_path: Path) -> None:
    assert run("provider=simulated", "policy.stamp.text=seen", "output.dir=run").returncode == 0
    assert "stamp" in (tmp_path / "run" / "spec.yaml").read_text()
    done = run("runs", "report", "run")
    assert done.returncode == 0, done.stderr


async def test_a_dialect_and_a_transport_reach_a_server(run: Run, tmp_path: Path) -> None:
    sent: list[dict[str, str]] = []

    async def script(exchange: Exchange) -> None:
        sent.append({name.lower(): value for name, value in exchange.headers.items()})
        await exchange.reply(200, completion("Hi"))

    async with ScriptedServer(script) as server:
        words = ("provider=acme", f"provider.base_url={server.url}/v1", "provider.transport.tag=blue", "policy=off")
        done = await asyncio.to_thread(run, *words)
    assert done.returncode == 0, done.stderr
    assert {(headers["x-acme"], headers["x-tag"]) for headers in sent} == {("1", "blue")}


def test_a_batch_dialect_is_planned_with(run: Run) -> None:
    planned = run("plan", "provider=acme", "policy/batch=provider")
    assert planned.returncode == 0, planned.stderr
    assert "jobs: " in planned.stdout


def test_a_runtime_and_a_source_answer_in_this_process(run: Run, tmp_path: Path, smollm2_gguf: Path) -> None:
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault" / "a").symlink_to(smollm2_gguf)
    words = ("provider=local", "hardware=abacus", "hardware.beads=2", "model=drawer", "workload=words")
    done = run(*words, env={"ACME_VAULT": str(tmp_path / "vault")})
    assert done.returncode == 0, done.stderr
    assert answers(tmp_path) == ["2 words, base 2"] * 2


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["provider=echo", "provider.shuot=true"], "did you mean provider.shout"),
        (["provider=simulated", "policy.stamp.texxt=a"], "did you mean policy.stamp.text"),
        (["provider=simulated", "policy.stmp.text=a"], "did you mean policy.stamp"),
        (["provider=acme", "provider.transport.tagg=a"], "did you mean provider.transport.tag"),
        (["provider=local", "hardware=abacus", "hardware.bedas=2"], "did you mean hardware.beads"),
        (["workload=words", "workload.wrods=[a]"], "did you mean workload.words"),
        (["provider=acme", "provider.dialect=acne"], "provider.dialect: got acne"),
        (["provider=acme", "provider.dialect=acne"], "did you mean acme"),
        (["provider=echo", "provider.kind=ecko"], "provider.kind: got ecko"),
        (["provider=echo", "provider.kind=ecko"], "did you mean echo"),
        (["provider=echo", "provider.shout=loud"], "provider.shout"),
        (["hardware=abacus", "hardware.kind=abakus"], "did you mean abacus"),
        (["workload=words", "workload.kind=wrods"], "did you mean words"),
        (["provider=acme", "provider.transport.kind=taged"], "provider.transport.kind"),
    ],
)
def test_a_typo_in_a_plug_ins_knob_names_the_nearest(run: Run, words: list[str], shown: str) -> None:
    done = run(*words)
    assert done.returncode == 2, done.stderr
    assert shown in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_installed_is_listed_with_its_distribution(run: Run) -> None:
    listed = run("plugins", "--json")
    assert listed.returncode == 0, listed.stderr
    kinds = json.loads(listed.stdout)
    ours = {(kind["port"], kind["kind"]) for kind in kinds if kind["distribution"] == "engine-acme 1.0"}
    assert ours == {
        *(("stages", "stamp"), ("dialects", "acme"), ("batch_dialects", "acme"), ("transports", "tagged")),
        *(("executors", "echo"), ("runtimes", "abacus"), ("workloads", "words"), ("sources", "vault")),
    }
    assert ("dialects", "openai") in {(kind["port"], kind["kind"]) for kind in kinds}
    assert "engine-acme 1.0" in run("plugins", "dialects").stdout


def test_a_schema_has_the_installed_kinds(run: Run) -> None:
    schema = json.loads(run("schema", "provider").stdout)
    assert "shout" in schema["$defs"]["EchoProviderSpec"]["properties"]
    assert {"$ref": "#/$defs/EchoProviderSpec"} in schema["anyOf"]


def test_a_plug_in_that_can_not_be_imported_ends_only_what_uses_it(run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    distribution(broken, "engine-broken", {"engine.dialects": {"broken": "no_such_module:Dialect"}})
    assert run("provider=simulated", site=broken).returncode == 0
    done = run("provider=openai", "provider.credential.required=false", "provider.dialect=broken", site=broken)
    assert done.returncode == 2
    assert "engine-broken 1.0" in done.stderr
    assert "Fix: reinstall or remove engine-broken 1.0" in done.stderr
    listed = run("plugins", site=broken)
    assert listed.returncode == 4
    assert "FAIL plug-in 'broken' of engine.dialects (engine-broken 1.0)" in listed.stdout


def test_a_plug_in_does_not_replace_a_kind_of_ours(run: Run, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile"
    distribution(hostile, "engine-hostile", {"engine.executors": {"simulated": "no_such_module:Executor"}})
    assert run("provider=simulated", site=hostile).returncode == 0


def test_the_page_shows_the_examples_code() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text()
    for file in sorted((PLUGIN / "engine_acme").glob("*.py")):
        if file.name != "__init__.py":
            assert file.read_text() in page, file.name
