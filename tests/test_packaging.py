"""The wheel and the sdist: what is in them, and that an installed wheel works from an empty directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


def run(command: list[str | Path], cwd: Path) -> str:
    """The command's standard output; it must succeed. Nothing of the checkout is on its path."""
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(source: Path, target: str, folder: Path) -> Path:
    pytest.importorskip("hatchling", reason='pip install -c constraints.txt -e ".[test]"')
    run([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder], source)
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


def environment(folder: Path, *what: str | Path) -> Path:
    """Makes an environment with `what` installed by pip, over this environment's packages; returns its scripts."""
    venv.create(folder, with_pip=True, symlinks=True)
    (site,) = folder.glob("lib/python3.*/site-packages")
    ours = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    # Read before path files of its own, whose code may need them. Path files of the folders named here, such as an
    # editable install's, are not read.
    (site / "_0_tests_environment.pth").write_text("\n".join(ours) + "\n")
    flags = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall"]
    run([folder / "bin" / "python", "-m", "pip", "install", *flags, *what], folder)
    return folder / "bin"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("installed"), wheel)


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("editables", reason='pip install -c constraints.txt -e ".[test]"')
    return environment(tmp_path_factory.mktemp("editable"), "-e", ROOT)


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def below(folder: str) -> set[str]:
    """The files of a folder of the checkout, by their path in it."""
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT / folder).as_posix() for path in files if "__pycache__" not in path.parts}


def test_the_wheel_has_every_option_schema_template_and_sample(wheel: Path) -> None:
    wanted = {f"engine/conf/{name}" for name in below("conf")}
    wanted |= {f"engine/{name}" for name in below("engine")} | {f"engine/schemas/{name}" for name in below("schemas")}
    assert names(wheel) == wanted


USERS_MODULES = ("schemas/__init__.py", "tests/__init__.py", "benchmarks/__init__.py", "conf.py")
SCRIPT = """
import json
import benchmarks, conf, engine, schemas, tests
from engine import Engine
from engine.schemas import RunSpec
targets = Engine.compose(["provider=simulated"]).targets
print(json.dumps([schemas.MINE, tests.MINE, benchmarks.MINE, conf.MINE, engine.__file__, targets]))
"""


@pytest.mark.parametrize("kind", ["installed", "editable"])
def test_a_users_packages_keep_their_names(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    scripts: Path = request.getfixturevalue(kind)
    for name in USERS_MODULES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("MINE = True\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    *mine, file, targets = json.loads(run([scripts / "python", "script.py"], tmp_path))
    assert mine == [True] * 4
    assert targets == ["simulated/simulated"]
    assert Path(file).is_relative_to(scripts.parent if kind == "installed" else ROOT)


@pytest.mark.parametrize("kind", ["installed", "editable"])
def test_an_install_brings_one_name(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    scripts: Path = request.getfixturevalue(kind)
    code = (
        "from importlib.util import find_spec\n"
        "print([n for n in ('schemas', 'tests', 'benchmarks', 'conf', 'engine', 'docs') if find_spec(n)])"
    )
    assert run([scripts / "python", "-c", code], tmp_path) == "['engine']\n"


@pytest.mark.parametrize("kind", ["installed", "editable"])
def test_the_script_runs_where_a_user_has_an_engine_of_their_own(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    scripts: Path = request.getfixturevalue(kind)
    (tmp_path / "engine.py").write_text("raise SystemExit('this is not the one')\n")
    run([scripts / "engine", "-m", "provider=simulated", "policy.queue.concurrency=1,2"], tmp_path)
    assert len(list(tmp_path.glob("outputs/sweeps/*/*/results.jsonl"))) == 2


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    sdist = build(ROOT, "sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    assert names(build(source, "wheel", tmp_path / "again")) == names(wheel)


def test_the_installed_engine_is_the_wheels(installed: Path, tmp_path: Path) -> None:
    found = run([installed / "python", "-c", "import engine; print(engine.__file__)"], tmp_path)
    assert found.startswith(str(installed.parent))


def test_the_installed_script_says_its_version(installed: Path, tmp_path: Path) -> None:
    assert run([installed / "engine", "--version"], tmp_path) == f"engine {_version()}\n"


def test_the_installed_help_lists_the_shipped_options(installed: Path, tmp_path: Path) -> None:
    assert "simulated" in run([installed / "engine", "--help"], tmp_path)


def test_the_installed_engine_plans_with_its_own_options(installed: Path, tmp_path: Path) -> None:
    planned = json.loads(run([installed / "python", "-m", "engine", "plan", "provider=simulated", "--json"], tmp_path))
    assert planned["problems"] == []
    assert [Path(source["path"]).parts[-2:] for source in planned["config"]] == [("engine", "conf")]


def test_the_installed_engine_answers_the_sample_from_an_empty_directory(installed: Path, tmp_path: Path) -> None:
    run([installed / "python", "-m", "engine", "provider=simulated"], tmp_path)
    (results,) = tmp_path.glob("outputs/*/results.jsonl")
    assert len(results.read_text().splitlines()) == 8
    assert (results.parent / "report.html").is_file()
    assert json.loads((results.parent / "manifest.json").read_text())["engine_version"] == _version()


def test_the_installed_engine_prints_the_schema_of_a_run(installed: Path, tmp_path: Path) -> None:
    assert "provider" in json.loads(run([installed / "engine", "schema", "run"], tmp_path))["properties"]


def _version() -> str:
    from engine import __version__

    return __version__
