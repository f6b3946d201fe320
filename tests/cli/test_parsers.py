"""Each verb's own flags and help, the plan of a sweep, and completion."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from engine.cli.candidates import candidates
from engine.cli.main import main
from engine.cli.verbs import VERBS


def commands() -> list[str]:
    names = []
    for verb in VERBS:
        module = import_module(f"engine.cli.{verb}")
        names += [verb, *(f"{verb} {name}" for name in getattr(module, "COMMANDS", ()))]
    return names


@pytest.mark.parametrize("name", commands())
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help(name: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), flag]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: engine {name}")
    for part in ("examples:\n", "exit codes:\n"):
        assert part in shown
    assert shown.partition("examples:\n")[2].partition("\n\n")[0].count("\n") >= 1


@pytest.mark.parametrize("name", commands())
def test_every_command_refuses_a_flag_of_none(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--nosuchflag"]) == 2
    assert "--nosuchflag" in capsys.readouterr().err or " " not in name


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (
            ["provider=simulated", "--dry-run"],
            "--dry-run: got a flag that `engine run` does not have; one of: --config-dir",
        ),
        (["plan", "provider=simulated", "--port", "9"], "--port: got a flag that `engine plan` does not have"),
        (["plan", "--requests", "x"], "did you mean --request"),
        (["simulate", "--prot", "9"], "did you mean --port"),
        (["--prot", "9", "simulate"], "did you mean --port"),
        (["simulate", "--port", "x"], "--port: got x; expected a whole number from 0 to 65535"),
        (["simulate", "--port"], "--port: expected one argument"),
        (["bench", "seed", "--clock", "sun"], "--clock: invalid choice: 'sun'"),
        (["check", "-m"], "-m: got a flag that `engine check` does not have"),
        (["runs", "shw"], "runs shw: not a command of runs; did you mean show"),
        (["runs", "diff", "one"], "runs diff: got one; expected RUN RUN"),
        (["runs", "prune"], "--keep"),
        (["runs", "prune", "--keep", "-1"], "--keep"),
        (["bench"], "bench: got no command; expected one of: seed, quantization"),
        (["plan", "-m", "provider=simulated", "--request", "rows.jsonl"], "--request: got a file with -m"),
    ],
)
def test_a_wrong_flag_or_word_is_one_line_with_the_fix(
    words: list[str], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert shown in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert said.out == ""


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "provider=simulated", "--json"],
        ["--json", "plan", "provider=simulated"],
        ["provider=simulated", "plan", "--json"],
        ["plan", "--json", "provider=simulated", "--"],
    ],
)
def test_flags_and_overrides_come_in_any_order(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if words[0].startswith("provider"):
        assert main(words) == 2  # an override before the verb: the verb is `run`, which has no --json
        assert "--json" in capsys.readouterr().err
        return
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []


def test_help_lists_the_options_of_a_config_repo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "provider").mkdir()
    (tmp_path / "provider" / "ourhouse.yaml").write_text("kind: simulated\nname: ourhouse\n")
    assert main(["--help", "--config-dir", str(tmp_path)]) == 0
    assert "ourhouse" in capsys.readouterr().out
    assert main(["--help", "--config-dir", str(tmp_path / "none")]) == 2
    assert "--config-dir: got" in capsys.readouterr().err


def test_a_planned_sweep_shows_cells_reasons_and_the_sum(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "-m", "provider=simulated,simulatd", "policy.queue.concurrency=8,32", "policy.retry.max_retries=2"]
    assert main(words) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "provider", "policy.queue.concurrency", "state", "rows", "calls", "at", "most", "tokens", "in", "tokens", "out",
        "at", "most", "cost", "at", "most", "reason",
    ]  # fmt: skip
    assert [line.split()[:5] for line in lines[1:3]] == [
        ["simulated", "8", "ok", "8", "24"],
        ["simulated", "32", "ok", "8", "24"],
    ]
    assert all("invalid" in line and "did you mean simulated" in line for line in lines[3:5])
    assert lines[5].startswith("2 of 4 cells can start: 16 rows, at most 48 calls,")


def test_a_planned_sweep_is_data_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-m", "provider=simulated", "provider.output_tokens=2,4", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [cell["choices"]["provider.output_tokens"] for cell in plan["cells"]] == ["2", "4"]
    assert plan["sum"]["requests"] == 16


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pl"], {"plan", "plugins"}),
        (["plan", "--req"], {"--request"}),
        (["runs", ""], {"list", "show", "diff", "report", "resume", "cancel", "prune"}),
        (["runs", "prune", "--k"], {"--keep"}),
        (["artifacts", "cache", ""], {"list", "verify", "remove", "prune"}),
        (["artifacts", "presign", "--method", "P"], {"PUT"}),
        (["bench", "seed", "--clock", ""], {"wall", "cpu"}),
        (["bench", "seed", "gp"], {"gpt2"}),
        (["provider=gr"], {"provider=groq"}),
        (["plan", "provider=simulated,gr"], {"provider=simulated,groq"}),
        (["policy.queue.on"], {"policy.queue.on_full="}),
        (["policy.queue.on_full="], {f"policy.queue.on_full={word}" for word in ("wait", "reject", "evict_lowest")}),
        (["policy.retry.enabled=t"], {"policy.retry.enabled=true"}),
        (["schema", "policy/q"], {"policy/queue"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["run", "--config-dir", ""], set()),
    ],
)
def test_completion_knows_what_may_follow(words: list[str], expected: set[str]) -> None:
    assert set(candidates(words)) == expected


def test_completion_knows_the_options_of_a_config_repo(tmp_path: Path) -> None:
    (tmp_path / "provider").mkdir()
    (tmp_path / "provider" / "ourhouse.yaml").write_text("kind: simulated\nname: ourhouse\n")
    assert candidates(["plan", "--config-dir", str(tmp_path), "provider=our"]) == ["provider=ourhouse"]
