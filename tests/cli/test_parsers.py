"""Each command's own flags, words and help; the errors of a wrong one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.cli.verbs import VERBS, all_commands
from tests.test_imports import CONFIGURATION, MODELS, NETWORK, loaded_by

NAMES = [name for name, _ in all_commands()]
GROUPS = sorted({name.rpartition(" ")[0] for name in NAMES if " " in name})
"""Verbs that have sub-verbs, and `artifacts cache`."""


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the one line of an error; there is no other output."""
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    return line


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help(name: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), flag]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: engine {name}")
    assert f"{'--debug':<10}" in shown
    examples = shown.partition("examples:\n")[2].partition("\n\n")[0].splitlines()
    verb = name.split()[0]
    assert len(examples) == 3
    assert all(line.startswith(f"  engine {verb}") for line in examples)
    assert "exit codes:\n  0 " in shown


@pytest.mark.parametrize("name", GROUPS)
def test_a_verb_with_sub_verbs_lists_them(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: engine {name} COMMAND [flags]")
    below = [each.removeprefix(f"{name} ") for each in NAMES if each.startswith(f"{name} ")]
    lines = shown.partition("commands:\n")[2].partition("\n\n")[0].splitlines()
    assert len(lines) == len(below)
    assert all(line.startswith(f"  {each}") for line, each in zip(lines, below, strict=True))
    assert "examples:\n" in shown
    assert "exit codes:\n" in shown


@pytest.mark.parametrize("name", NAMES)
def test_every_command_refuses_an_unknown_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--hepl"]) == 2
    line = error(capsys)
    assert line.startswith(f"error: --hepl: got an unknown flag; expected a flag of `engine {name}`: --")
    assert line.endswith(f". Fix: did you mean --help? See engine {name} --help")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("run", "plan")])
def test_only_a_run_and_a_plan_have_sweeps(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "-m"]) == 2
    assert error(capsys).startswith("error: -m: got a flag of `engine run`; expected a flag of")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["provider=groq", "--dry-run"],
            "--dry-run: got a flag of `engine runs prune`; expected a flag of `engine run`: --config-dir, --debug, "
            "--help, --multirun. Fix: did you mean `engine plan`? See engine run --help",
        ),
        (
            ["plan", "provider=groq", "--port", "9", "--resume"],
            "--port: got a flag of `engine simulate`; expected a flag of `engine plan`: --config-dir, --debug, --help, "
            "--json, --multirun, --request. Fix: did you mean --request? See engine plan --help",
        ),
        (["plan", "--requests=x"], "Fix: did you mean --request? See engine plan --help"),
        (["simulate", "--prot", "9"], "Fix: did you mean --port? See engine simulate --help"),
        (["--prot", "9", "simulate"], "Fix: did you mean --port? See engine simulate --help"),
        (["simulate", "--port", "x"], "--port: got x; expected a whole number from 0 to 65535. Fix: see engine"),
        (["simulate", "--port", "-5"], "--port: got -5; expected a whole number from 0 to 65535. Fix: see engine"),
        (["simulate", "--port=-5"], "--port: got -5; expected a whole number from 0 to 65535. Fix: see engine"),
        (["simulate", "--port="], "--port: got nothing; expected a whole number from 0 to 65535. Fix: see engine"),
        (["simulate", "--port"], "--port: got no value; expected TCP port; 0 takes a free one. Fix: --port PORT"),
        (["simulate", "--host", "--port", "1"], "--host: got no value; expected address that it listens on. Fix: --h"),
        (["plan", "--json=yes"], "--json: got the value yes; expected no value. Fix: --json"),
        (["plan", "-1"], "-1: got an unknown flag; expected a flag of `engine plan`"),
        (["plan", "--", "--json"], "--json: can't be read as key=value"),
        (["plan", "--config-dir="], "--config-dir: got nothing; expected a folder. Fix: see engine plan --help"),
        (["plan", "--config-dir", "nowhere"], "--config-dir: got nowhere; expected a folder. Fix: see engine plan"),
        (["bench", "seed", "--clock", "sun"], "--clock: got sun; expected wall or cpu. Fix: see engine bench seed"),
        (["matrix", "--time-limit", "nan"], "--time-limit: got nan; expected a number above 0. Fix: see engine matrix"),
        (["runs", "prune"], "--keep: got no value; expected number of the newest runs to keep. Fix: --keep N"),
        (["runs", "prune", "--keep", "-1"], "--keep: got -1; expected a whole number from 0. Fix: see engine runs"),
        (["runs", "shw"], "runs shw: got an unknown command of runs; expected one of list, show, diff, report, "
                          "resume, cancel, prune. Fix: did you mean show? See engine runs --help"),
        (["runs", "diff", "one"], "runs diff: got one; expected RUN RUN. Fix: engine runs diff A B"),
        (["runs", "list", "one"], "runs list: got one; expected no words. Fix: engine runs list"),
        (["artifacts", "cache", "empty"], "artifacts cache empty: got an unknown command of artifacts cache; expected"),
        (["artifacts", "get", "s3://b/k", "a", "b"], "artifacts get: got s3://b/k a b; expected s3://BUCKET/KEY [PA"),
        (["bench"], "bench: got no command; expected one of seed, quantization. Fix: see engine bench --help"),
        (["schema", "provder"], "schema provder: got an unknown group; expected one of run, provider"),
        (["completion", "bsh"], "completion bsh: got an unknown shell; expected one of bash, zsh, fish. Fix: did you "
                                "mean bash? See engine completion --help"),
        (["rnus"], "Fix: did you mean runs? See engine --help"),
        (["seed=1", "rows.jsonl"], "rows.jsonl: can't be read as key=value; quote values"),
        (["plan", "-m", "provider=simulated", "--request", "rows.jsonl"], "--request: got rows.jsonl with -m; expected "
                                                                          "one run. Fix: leave out -m or --request"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_one_line_with_the_fix(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert expected in error(capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "provider=simulated", "--json"],
        ["plan", "--json", "provider=simulated", "+seed=3"],
        ["--json", "plan", "provider=simulated"],
        ["provider=simulated", "plan", "--json"],
        ["provider=simulated", "--json", "+seed=3", "plan"],
        ["--config-dir", "plan", "plan", "provider=simulated", "--json"],
        ["plan", "--json", "--", "provider=simulated"],
    ],
)
def test_a_verb_flags_and_overrides_come_in_any_order(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan").mkdir()
    assert main(words) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["targets"][0]["target"] == "simulated/simulated"
    assert plan["spec"]["seed"] == (3 if "+seed=3" in words else 0)


def test_a_sub_verb_comes_anywhere_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["runs", "list"], ["runs"], ["--root", str(tmp_path), "runs", "list"], ["runs", "--root", "runs"]):
        root = [] if "--root" in words else ["--root", str(tmp_path)]
        assert main([*words, *root]) == 0
        assert capsys.readouterr().out.startswith("no runs in ")


@pytest.mark.parametrize("words", [["--help"], ["plan", "--help"], ["artifacts", "get", "--help"]])
def test_help_lists_the_options_of_a_config_repo(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "provider").mkdir()
    (tmp_path / "provider" / "ourhouse.yaml").write_text("kind: simulated\nname: ourhouse\n")
    assert main([*words, "--config-dir", str(tmp_path)]) == 0
    assert "ourhouse" in capsys.readouterr().out
    assert main([*words, "--config-dir", str(tmp_path / "none")]) == 2
    assert f"--config-dir: got {tmp_path / 'none'}; expected a folder" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--version"], ["plan", "--version"], ["--debug", "--version"]])
def test_the_version_is_printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("engine ")


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_loads_neither_hydra_nor_a_model_library(verb: str) -> None:
    code = f"from engine.cli import main\nassert main(['{verb}', '--help']) == 0"
    assert loaded_by(code) & (CONFIGURATION | MODELS | NETWORK | {"rich"}) == set()


@pytest.mark.slow
def test_debug_and_help_work_as_a_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine", "runs", "prune", "--keep", "--debug"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1].startswith("error: --keep: got no value")
