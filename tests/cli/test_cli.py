"""The command line as a user meets it: real processes, their output and their exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def engine(
    *words: str, cwd: Path, env: dict[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m engine` without any of the caller's keys."""
    clean = {name: value for name, value in os.environ.items() if not name.endswith(("_KEY", "_TOKEN"))}
    clean |= {"PYTHONPATH": str(ROOT), "HOME": str(cwd)} | (env or {})
    return subprocess.run(
        [sys.executable, "-m", "engine", *words],
        cwd=cwd,
        env=clean,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
    )


def the_run(cwd: Path) -> Path:
    (manifest,) = (cwd / "outputs").glob("*/manifest.json")
    return manifest.parent


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_its_whole_directory(tmp_path: Path) -> None:
    done = engine("provider=simulated", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 answered" in done.stdout
    names = {path.name for path in the_run(tmp_path).iterdir()}
    expected = {"results.jsonl", "dead.jsonl", "report.md", "report.html", "metrics.json", "manifest.json", "spec.yaml"}
    assert expected | {"journal.sqlite", "run.log"} <= names
    result = rows(the_run(tmp_path) / "results.jsonl")[0]
    assert set(result) == {"id", "custom_id", "response", "error", "engine"}
    assert result["response"]["status_code"] == 200  # type: ignore[index]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["provider=grok"], 2, ["provider=grok", "did you mean groq"]),
        (["policy.queue.sise=5"], 2, ["policy.queue.sise", "policy.queue.size"]),
        (["+typo=1"], 2, ["typo", "no key"]),
        (["provider=simulated", "workload=jsonl", "workload.path=rows.jsonl"], 2, ["workload.path", "rows.jsonl"]),
        (["provider=openai"], 4, ["OPENAI_API_KEY", "export"]),
        (["provider=simulated", "output.dir=/proc/nowhere/run"], 5, ["output.dir", "/proc/nowhere"]),
        (["provider=simulated", "output.resume=outputs/none"], 5, ["output.resume", "outputs/none"]),
        (["provider=openai", "provider.api_key=abcdefgh12345678"], 2, ["provider.api_key", "secret"]),
        (["provider", "=", "groq"], 2, ["no spaces around =", "provider=VALUE"]),
        (["rum"], 2, ["rum", "did you mean run"]),
        (["--typo"], 2, ["--typo"]),
        (["runs", "show"], 2, ["runs show: got nothing; expected RUN", "engine runs show RUN"]),
        (["provider=simulated", "--config-dir", "none"], 2, ["--config-dir", "none"]),
    ],
)
def test_an_error_is_a_few_lines_with_the_next_step_and_leaves_nothing(
    tmp_path: Path, words: list[str], code: int, said: list[str]
) -> None:
    done = engine(*words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert all(part in done.stderr for part in said), done.stderr
    assert "Traceback" not in done.stderr
    assert 1 <= len(done.stderr.strip().splitlines()) <= 3
    assert "abcdefgh12345678" not in done.stdout + done.stderr
    assert list(tmp_path.glob("outputs/*")) == []


def test_hardware_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    if _cuda():
        pytest.skip("this machine has CUDA")
    done = engine("hardware=cuda", cwd=tmp_path)
    assert done.returncode == 4
    assert "hardware" in done.stderr
    assert "Traceback" not in done.stderr
    assert (
        engine("plan", "provider=groq", "hardware=cuda", cwd=tmp_path, env={"GROQ_API_KEY": "k" * 20}).returncode == 0
    )


def _cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def test_help_breaks_no_name_in_two(tmp_path: Path) -> None:
    shown = engine("--help", cwd=tmp_path).stdout.split()
    assert all(path.stem in shown for path in (ROOT / "conf" / "model").glob("*.yaml"))


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = engine("provider=grok", "--debug", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_malformed_row_fails_alone_and_is_kept_for_repair(tmp_path: Path) -> None:
    lines = [json.dumps({"custom_id": f"c{n}", "prompt": f"say {n}"}) for n in range(1, 9)]
    lines[2] = '{"custom_id": "c3", "prompt": '
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    done = engine("provider=simulated", "workload=jsonl", "workload.path=rows.jsonl", "output.dir=run", cwd=tmp_path)
    assert done.returncode == 3
    assert "rows.jsonl:3" in done.stderr
    assert "Traceback" not in done.stderr
    results = rows(tmp_path / "run" / "results.jsonl")
    assert [result["error"] is None for result in results] == [True, True, False, True, True, True, True, True]
    assert len(rows(tmp_path / "run" / "dead.jsonl")) == 1
    stopped = engine(
        "provider=simulated", "workload=jsonl", "workload.path=rows.jsonl", "workload.on_invalid=stop", cwd=tmp_path
    )
    assert stopped.returncode == 2
    assert not (tmp_path / "outputs").exists()


def test_plan_says_what_would_happen_and_does_nothing(tmp_path: Path) -> None:
    done = engine("plan", "provider=groq", "policy=interactive", cwd=tmp_path)
    assert done.returncode == 4
    for part in ("chain (outermost first)", "GROQ_API_KEY", "found: none", "requests: 8", "can't run:"):
        assert part in done.stdout
    with_key = engine("plan", "provider=groq", cwd=tmp_path, env={"GROQ_API_KEY": "gsk_" + "x" * 30})
    assert with_key.returncode == 0
    assert "found: GROQ_API_KEY" in with_key.stdout
    assert "x" * 30 not in with_key.stdout + with_key.stderr
    data = json.loads(engine("plan", "provider=simulated", "--json", cwd=tmp_path).stdout)
    assert data["workload"]["requests"] == 8
    assert list(tmp_path.iterdir()) == []


def test_check_reaches_each_target(tmp_path: Path) -> None:
    done = engine("check", "provider=simulated", "fallbacks=[{provider:openai}]", cwd=tmp_path)
    assert done.returncode == 4
    ok, failed = done.stdout.splitlines()
    assert ok.startswith("ok   simulated/simulated")
    assert failed.startswith("FAIL openai/")
    assert "OPENAI_API_KEY" in failed


def test_a_file_without_rows_is_said_to_have_none(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    done = engine("provider=simulated", "workload=jsonl", "workload.path=empty.jsonl", cwd=tmp_path)
    assert done.returncode == 0
    assert "the workload has no rows" in done.stderr


def test_stdin_is_a_workload(tmp_path: Path) -> None:
    done = engine(
        "provider=simulated", "workload=stdin", "output.dir=run", cwd=tmp_path, stdin='hello\n{"prompt": "hi"}\n'
    )
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "run" / "results.jsonl")) == 2


def test_runs_are_listed_shown_compared_reported_and_pruned(tmp_path: Path) -> None:
    for name in ("a", "b"):
        seed = "1" if name == "a" else "2"
        assert engine("provider=simulated", f"seed={seed}", f"output.dir=outputs/{name}", cwd=tmp_path).returncode == 0
    listed = json.loads(engine("runs", "list", "--json", cwd=tmp_path).stdout)
    assert [(run["name"], run["status"], run["ok"]) for run in listed] == [("a", "finished", 8), ("b", "finished", 8)]
    assert "finished" in engine("runs", "show", "a", cwd=tmp_path).stdout
    assert "seed: 1 -> 2" in engine("runs", "diff", "a", "b", cwd=tmp_path).stdout
    (tmp_path / "outputs" / "a" / "report.md").unlink()
    assert "# Run" in engine("runs", "report", "a", cwd=tmp_path).stdout
    assert (tmp_path / "outputs" / "a" / "report.md").exists()
    assert "1 would be deleted" in engine("runs", "prune", "--keep", "1", "--dry-run", cwd=tmp_path).stdout
    assert "1 deleted" in engine("runs", "prune", "--keep", "1", cwd=tmp_path).stdout
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["b"]


def test_a_sweep_has_a_row_for_every_cell_and_continues(tmp_path: Path) -> None:
    command = ["-m", "provider=simulated,grok", "policy.queue.size=10,100"]
    done = engine(*command, cwd=tmp_path)
    assert done.returncode == 3
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    table = json.loads((folder / "table.json").read_text())
    assert [cell["status"] for cell in table] == ["ok", "ok", "failed", "failed"]
    assert table[0]["choices"] == {"provider": "simulated", "policy.queue.size": "10"}
    assert "did you mean groq" in table[2]["reason"]
    assert len((folder / "table.csv").read_text().splitlines()) == 5
    assert len(list(folder.glob("*.log"))) == 4
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/results.jsonl")}
    assert engine(*command, cwd=tmp_path).returncode == 3
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*/results.jsonl")}


def test_a_sweep_whose_cells_all_end_well_exits_with_0(tmp_path: Path) -> None:
    done = engine("-m", "provider=simulated", "provider.output_tokens=2,4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "provider.output_tokens" in done.stdout


def test_the_config_repos_commit_is_in_the_manifest(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    (repo / "provider").mkdir(parents=True)
    (repo / "provider" / "mine.yaml").write_text("kind: simulated\nname: mine\n")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "c"]):
        subprocess.run(["git", "-C", str(repo), *words], check=True)
    commit = subprocess.run(
        ["git", "-C", str(repo), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    done = engine("provider=mine", "--config-dir", "repo", "output.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    source = next(config for config in manifest["configs"] if config["origin"] == "--config-dir")
    assert (source["commit"], source["dirty"]) == (commit, False)


def test_schemas_and_completion(tmp_path: Path) -> None:
    schema = json.loads(engine("schema", "policy/queue", cwd=tmp_path).stdout)
    assert schema["properties"]["size"]["description"] == "Requests that may wait."
    assert "complete -o default" in engine("completion", "bash", cwd=tmp_path).stdout
    assert engine("__complete", "provider=gr", cwd=tmp_path).stdout.split() == ["provider=groq"]
    assert "policy.queue.size=" in engine("__complete", "policy.queue.", cwd=tmp_path).stdout.split()


def test_the_exported_schemas_are_up_to_date() -> None:
    from engine.cli.schema import GROUPS, render

    for group in GROUPS:
        assert (ROOT / "schemas" / "json" / f"{group}.json").read_text() == render(group)


def test_every_shipped_option_is_valid_and_names_its_schema() -> None:
    from pydantic import TypeAdapter
    from yaml import safe_load

    from engine.cli.schema import GROUPS

    files = sorted((ROOT / "conf").rglob("*.yaml"))
    assert len(files) > 40
    for file in files:
        text = file.read_text()
        named = text.partition("$schema=")[2].split()[0]
        assert (file.parent / named).resolve().is_file(), file
        group = file.parent.relative_to(ROOT / "conf").as_posix()
        option = safe_load(text)
        if group == "." or "defaults" in option or "???" in text:
            continue
        TypeAdapter(GROUPS[group]).validate_python(option)


def test_a_locale_without_our_characters_ends_nothing(tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = engine("provider=simulated", cwd=tmp_path, env=plain)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 answered" in done.stdout


def test_a_closed_stderr_ends_nothing(tmp_path: Path) -> None:
    command = f"exec {sys.executable} -m engine provider=simulated 2>&-"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == 0
    assert b"8 of 8 answered" in done.stdout


def test_debug_keeps_the_exit_code_and_the_error_line(tmp_path: Path) -> None:
    done = engine("provider=grok", "--debug", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: provider=grok")


@pytest.mark.parametrize("words", [["{}"], ["runs", "show", "{}"], ["schema", "{}"], ["--config-dir", "{}"]])
def test_a_secret_typed_in_the_wrong_place_is_not_repeated(words: list[str], tmp_path: Path) -> None:
    key = "canary0f9b7kq2x"
    for debug in ([], ["--debug"]):
        done = engine(*(word.format(key) for word in words), *debug, cwd=tmp_path, env={"OPENAI_API_KEY": key})
        assert done.returncode in (2, 5)
        assert key not in done.stdout + done.stderr


def slow_sweep(cwd: Path) -> subprocess.Popen[str]:
    """A sweep of two cells whose first has begun; alone, a cell takes half a minute."""
    (cwd / "rows.jsonl").write_text("".join(f'{{"prompt": "q{number}"}}\n' for number in range(240)))
    words = ["provider=simulated", "provider.latency_s=0.5", "policy.queue.concurrency=4", "seed=1,2"]
    words += ["workload=jsonl", "workload.path=rows.jsonl"]
    process = subprocess.Popen(
        [sys.executable, "-m", "engine", "-m", *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until = time.monotonic() + 20
    while not list(cwd.glob("outputs/sweeps/*/001-*/journal.sqlite-wal")):
        assert time.monotonic() < until
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_of_a_sweep_reaches_its_cell_and_ends_both(number: signal.Signals, tmp_path: Path) -> None:
    process = slow_sweep(tmp_path)
    process.send_signal(number)
    said, _ = process.communicate(timeout=15)
    assert process.returncode == 130, said
    assert "give the same command again" in said
    (cell,) = tmp_path.glob("outputs/sweeps/*/001-*/manifest.json")
    manifest = json.loads(cell.read_text())
    assert manifest["status"] == "interrupted"
    assert 0 <= manifest["ok"] < 240


def test_a_full_device_behind_standard_output_is_one_line_and_the_run_is_kept(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "engine", "provider=simulated"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 5
    assert "standard output can't be written" in done.stderr
    assert len(rows(the_run(tmp_path) / "results.jsonl")) == 8


def test_a_run_whose_last_key_is_refused_stops_and_can_be_resumed(tmp_path: Path) -> None:
    done = engine("provider=simulated", "provider.keys=1", "provider.faults=[{kind: auth}]", cwd=tmp_path)
    assert done.returncode == 4
    assert "no key is left" in done.stderr
    assert ".. " not in done.stderr
    assert "runs resume" in done.stderr
    manifest = json.loads((the_run(tmp_path) / "manifest.json").read_text())
    assert (manifest["status"], manifest["failed"]) == ("failed", 0)
