"""Completion: the candidates of a word, and the scripts in real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.candidates import candidates
from engine.cli.main import main
from tests.test_imports import loaded_by

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pl"], {"plan", "plugins"}),
        (["provider=groq", "pla"], {"plan"}),
        (["plan", "--req"], {"--request"}),
        (["plan", "-"], {"--request", "--multirun", "--json", "--config-dir", "--debug", "--help"}),
        (["--m"], {"--multirun"}),
        (["runs", ""], {"list", "show", "diff", "report", "resume", "cancel", "prune"}),
        (["runs", "--root", "outputs", "pr"], {"prune"}),
        (["runs", "prune", "--k"], {"--keep"}),
        (["runs", "prune", "--keep", ""], set()),
        (["artifacts", "pr"], {"presign"}),
        (["artifacts", "cache", ""], {"list", "verify", "remove", "prune"}),
        (["artifacts", "presign", "--method", "P"], {"PUT"}),
        (["artifacts", "presign", "--method=P"], {"--method=PUT"}),
        (["artifacts", "cache", "list", "storage.off"], {"storage.offline="}),
        (["artifacts", "cache", "list", "prov"], set()),
        (["bench", "se"], {"seed"}),
        (["bench", "seed", "--clock", ""], {"wall", "cpu"}),
        (["bench", "seed", "gp"], {"gpt2"}),
        (["provider=gr"], {"provider=groq"}),
        (["+provider=gr"], {"+provider=groq"}),
        (["plan", "provider=simulated,gr"], {"provider=simulated,groq"}),
        (["plan", "provider/f"], {"provider/faults="}),
        (["policy.queue.on"], {"policy.queue.on_full="}),
        (["policy.qu"], {"policy.queue."}),
        (["se"], {"seed="}),
        (["policy.queue.on_full="], {f"policy.queue.on_full={word}" for word in ("wait", "reject", "evict_lowest")}),
        (["policy.retry.enabled=t"], {"policy.retry.enabled=true"}),
        (["schema", "policy/q"], {"policy/queue"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["rnus", ""], set()),
    ],
)
def test_completion_knows_what_may_follow(words: list[str], expected: set[str]) -> None:
    assert {name for name in candidates(words) if not (words == ["se"] and "." in name)} == expected


def test_completion_knows_the_options_of_a_config_repo(tmp_path: Path) -> None:
    (tmp_path / "provider").mkdir()
    (tmp_path / "provider" / "ourhouse.yaml").write_text("kind: simulated\nname: ourhouse\n")
    for flag in (["--config-dir", str(tmp_path)], [f"--config-dir={tmp_path}"]):
        assert candidates(["plan", *flag, "provider=our"]) == ["provider=ourhouse"]
        assert candidates([*flag, "provider=our"]) == ["provider=ourhouse"]


def test_completion_knows_folders_files_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.jsonl").touch()
    assert candidates(["--config-dir", "co"]) == ["conf.d/"]
    assert candidates(["plan", "--request", "co"]) == ["conf.d/", "conf.jsonl"]
    assert candidates(["workload.path=co"]) == ["workload.path=conf.d/", "workload.path=conf.jsonl"]
    assert candidates(["artifacts", "put", "co"]) == ["conf.d/", "conf.jsonl"]
    assert candidates(["plan", "--request", "nowhere/co"]) == []
    assert main(["provider=simulated", "output.dir=outputs/myrun", "telemetry.progress=off"]) == 0
    assert candidates(["runs", "show", "my"]) == ["myrun"]
    assert candidates(["runs", "diff", "myrun", "my"]) == ["myrun"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["pl"], ["plan", "provider=gr"], ["runs", "pr"], ["plan", "--j"]])
def test_completion_of_names_loads_neither_hydra_nor_the_specs(words: list[str]) -> None:
    code = f"from engine.cli.candidates import candidates\nassert candidates({words})"
    assert loaded_by(code) & {"hydra", "rich", "torch", "openvino", "httpx", "aiohttp"} == set()


SHELLS = {
    "bash": 'eval "$(engine completion bash)"; COMP_LINE="{0}"; COMP_POINT=${{#COMP_LINE}}; _engine 2>/dev/null; '
    'printf "%s\\n" "${{COMPREPLY[@]}}"',
    "fish": 'engine completion fish | source; complete -C "{0}"',
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("engine pla", "plan"),
        ("engine plan provider=gr", "groq"),
        ("engine runs sh", "show"),
        ("engine --mu", "--multirun"),
    ],
)
def test_a_shell_completes_a_line(shell: str, line: str, expected: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    command = tmp_path / "engine"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m engine "$@"\n')
    command.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(
        [shell, "-c", SHELLS[shell].format(line)], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert [each.partition("\t")[0].rpartition("=")[2] for each in done.stdout.split()] == [expected], done.stderr
