"""engine/runs/directory.py."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from engine.core.errors import OutputError, SetupError
from engine.runs import Provenance, RunDirectory, find_run, load_spec, open_run
from engine.runs.manifest import Session
from engine.schemas import RunSpec
from engine.workloads.open import open_source
from tests.runs.child_run import spec_of


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a"}\n')
    return str(path)


def opened(spec: RunSpec) -> RunDirectory:
    return open_run(spec, open_source(spec.workload), Provenance(overrides=["provider=simulated"]))


def test_a_new_run_gets_a_directory_of_its_own(rows: str, tmp_path: Path) -> None:
    spec = spec_of(rows, str(tmp_path / "out"))
    with opened(spec) as first, opened(spec) as second:
        assert first.path != second.path
        assert first.path.parent == second.path.parent == tmp_path / "out"


def test_it_begins_with_its_spec_and_the_status_running(rows: str, tmp_path: Path) -> None:
    spec = spec_of(rows, str(tmp_path / "out"))
    with opened(spec) as run:
        manifest = json.loads((run.path / "manifest.json").read_text())
        assert manifest["status"] == "running"
        assert manifest["overrides"] == ["provider=simulated"]
        assert load_spec(run.path) == spec


def test_a_named_directory_is_the_run_directory(rows: str, tmp_path: Path) -> None:
    with opened(spec_of(rows, "unused", dir=str(tmp_path / "deep" / "run"))) as run:
        assert run.path == tmp_path / "deep" / "run"


def test_an_empty_directory_is_taken(rows: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with opened(spec_of(rows, "unused", dir=str(tmp_path / "run"))):
        pass


def test_a_directory_with_a_file_in_it_is_refused_and_left_alone(rows: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"output\.dir: .* is not empty \(thesis\.txt, …\); name a new"):
        opened(spec_of(rows, "unused", dir=str(tmp_path / "run")))
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_directory_that_holds_a_run_is_never_overwritten(rows: str, tmp_path: Path) -> None:
    spec = spec_of(rows, "unused", dir=str(tmp_path / "run"))
    opened(spec).close()
    with pytest.raises(OutputError, match=r"already holds a run; continue it with output\.resume="):
        opened(spec)


def test_a_directory_in_use_is_refused(rows: str, tmp_path: Path) -> None:
    spec = spec_of(rows, "unused", dir=str(tmp_path / "run"))
    with opened(spec), pytest.raises(OutputError, match="in use by another process"):
        opened(spec)


def test_a_place_that_is_no_directory_is_refused(rows: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"output\.dir: .* can't be made: Not a directory; choose"):
        opened(spec_of(rows, "unused", dir=f"{rows}/run"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_root_is_refused(rows: str, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match=r"output\.root: .* can't be made: Permission denied"):
        opened(spec_of(rows, str(tmp_path / "locked" / "out")))


def test_a_run_that_could_not_begin_leaves_nothing(rows: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError), opened(spec_of(rows, str(tmp_path / "a" / "out"))):
        raise SetupError("no such device")
    assert not (tmp_path / "a").exists()


def test_a_run_that_could_not_begin_leaves_the_users_directory(rows: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(SetupError), opened(spec_of(rows, "unused", dir=str(tmp_path / "run"))):
        raise SetupError("no such device")
    assert list((tmp_path / "run").iterdir()) == []


def test_resuming_what_is_not_there_offers_the_nearest_run(rows: str, tmp_path: Path) -> None:
    opened(spec_of(rows, str(tmp_path / "out"), dir=str(tmp_path / "out" / "first"))).close()
    with pytest.raises(OutputError, match=r"output\.resume: frist is not a run directory; did you mean first\?"):
        find_run("frist", tmp_path / "out")


def test_a_password_in_a_url_is_not_written_down(rows: str, tmp_path: Path) -> None:
    plain = spec_of(rows, str(tmp_path / "out")).model_dump(mode="json")
    plain["provider"] = {"kind": "remote", "name": "x", "base_url": "http://user:canary@localhost:1/v1"}
    with opened(RunSpec.model_validate(plain)) as run:
        assert "canary" not in (run.path / "spec.yaml").read_text()
        written = yaml.safe_load((run.path / "spec.yaml").read_text())
        assert written["provider"]["base_url"] == "http://***@localhost:1/v1"


@pytest.mark.parametrize("left", [[], ["spec.yaml"], [".spec.yaml.123.tmp"], ["spec.yaml", ".manifest.json.123.tmp"]])
@pytest.mark.parametrize("key", ["dir", "resume"])
def test_a_run_that_was_killed_before_its_manifest_begins(key: str, left: list[str], rows: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in [".lock", *left]:
        (run / name).touch()
    with opened(spec_of(rows, "unused", **{key: str(run)})) as begun:
        assert begun.path == run
        assert {path.name for path in run.iterdir()} == {".lock", "spec.yaml", "manifest.json"}
        begun.manifest.sessions.append(Session(started="now"))


def test_a_users_own_spec_yaml_is_no_killed_run(rows: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "spec.yaml").write_text("precious")
    with pytest.raises(OutputError, match="not empty"):
        opened(spec_of(rows, "unused", dir=str(tmp_path / "mine")))
    assert (tmp_path / "mine" / "spec.yaml").read_text() == "precious"


def test_a_resume_takes_away_what_a_killed_process_left_half_written(rows: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with opened(spec_of(rows, "unused", dir=str(run))) as begun:
        begun.manifest.sessions.append(Session(started="now"))
    (run / ".results.jsonl.123.tmp").touch()
    opened(spec_of(rows, "unused", resume=str(run))).close()
    assert not (run / ".results.jsonl.123.tmp").exists()
