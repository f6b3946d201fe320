"""Config repos: no code of theirs is run, and each error names the file."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine.config.compose import compose
from engine.core.child_process import module_command
from engine.core.errors import ConfigError


def refusal(*overrides: str, config_dir: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compose(list(overrides), config_dir)
    return str(caught.value)


def package(folder: Path, name: str) -> None:
    """Writes a package that leaves a file when it is imported."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("open('RUN', 'w')\n")


@pytest.mark.parametrize(
    "path", ["pkg://evil", "pkg://evil.conf", "PKG://evil", "evil://x", "pkg://hydra.conf.x", "${x}"]
)
@pytest.mark.parametrize("where", ["config.yaml", "command line"])
def test_a_package_is_no_search_path(path: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "evil")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    typed = []
    if where == "config.yaml":
        (tmp_path / "config.yaml").write_text(
            f"defaults: [provider: simulated, _self_]\nx: pkg://evil\nhydra: {{searchpath: ['{path}']}}\n"
        )
    elif "$" in path:
        return
    else:
        typed = [f"hydra.searchpath=['{path}']"]
    text = refusal("provider=simulated", *typed, config_dir=tmp_path)
    assert "hydra.searchpath: got" in text
    assert "Fix: file:///PATH" in text
    assert not (tmp_path / "RUN").exists()
    assert "evil" not in sys.modules


@pytest.mark.slow
def test_a_hydra_plugins_folder_is_not_imported(tmp_path: Path) -> None:
    package(tmp_path, "hydra_plugins")
    (tmp_path / "hydra_plugins" / "mine.py").write_text("open('RUN', 'w')\n")
    done = subprocess.run(
        [*module_command("engine"), "plan", "provider=simulated"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "RUN").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"5\n", "got a single value; expected keys"),
        (b"'text'\n", "policy.retry.text"),
        (b"true\n", "got a single value"),
        (b"a: !!python/object/apply:os.system [touch RUN]\n", "not valid YAML"),
        (b"# caf\xe9\nmax_retries: 3\n", "got the byte 0xe9; expected text in UTF-8"),
        (b"max_retries: 3\nmax_retries: 4\n", "found duplicate key"),
        (b"max_retries: [\n", "not valid YAML"),
        (b"max_retries: \x00\n", "not valid YAML"),
        (b"max_retries: '${'\n", "mine.yaml"),
        (b"defaults: 3\n", "mine"),
        (b"- 1\n", "mine.yaml"),
        (b"max_retries: {a: 1}\n", "policy.retry.max_retries"),
        (b"max_retries: many\nmultiplier: few\n", "policy.retry.multiplier='few'"),
        (b"max_retires: 3\n", "policy.retry.max_retires"),
    ],
)
def test_the_error_of_a_file_names_it(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "policy" / "retry").mkdir(parents=True)
    file = tmp_path / "policy" / "retry" / "mine.yaml"
    file.write_bytes(content)
    text = refusal("provider=simulated", "policy/retry=mine", config_dir=tmp_path)
    assert said in text
    assert "policy/retry/mine" in text
    assert all(str(file) in line for line in text.splitlines() if "policy.retry" in line)


def test_several_errors_are_shown_at_once() -> None:
    text = refusal("provider=grok", "policy.queue.sise=5", "hydra.run.dir=x", "policy/retry=never")
    assert len(text.splitlines()) == 4


def test_unknown_keys_and_wrong_values_are_shown_together() -> None:
    text = refusal("provider=simulated", "policy.queue.sise=5", "policy.queue.size=many", "seed=x")
    assert [line.partition("=")[0].partition(":")[0] for line in text.splitlines()] == [
        "policy.queue.sise",
        "policy.queue.size",
        "seed",
    ]


@pytest.mark.parametrize("typed", ["output.root='${'", "output.root='${foo:}'", "output.root='${hydra:job.name}'"])
def test_an_interpolation_that_cannot_be_read_is_named(typed: str) -> None:
    assert "output.root" in refusal("provider=simulated", typed)


def test_a_package_after_a_group_is_refused() -> None:
    assert "policy@x=off: got a package" in refusal("provider=simulated", "policy@x=off")
