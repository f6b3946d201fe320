"""What the documentation shows is valid: every command composes, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from engine.config.compose import compose, expand

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
FLAGS = {"-m", "--multirun", "--json", "--debug"}
COMPOSING = {"run", "plan", "check"}


def shown_commands() -> list[str]:
    """The command lines of the bash blocks that compose a run."""
    found: set[str] = set()
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.splitlines():
                _, program, words = line.partition("python -m engine")
                if program:
                    found.add(words.strip())
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize("command", shown_commands())
def test_a_shown_command_composes(command: str) -> None:
    words = shlex.split(command.replace("$PWD", str(ROOT)), comments=True)
    config_dir = None
    if "--config-dir" in words:
        place = words.index("--config-dir")
        config_dir = ROOT / words[place + 1]
        del words[place : place + 2]
    if "--request" in words:
        place = words.index("--request")
        del words[place : place + 2]
    verb = words.pop(0) if words and "=" not in words[0] and words[0] not in FLAGS else "run"
    if verb not in COMPOSING or "--help" in words:
        return
    overrides = [word for word in words if word not in FLAGS]
    cells = expand(overrides, config_dir) if {"-m", "--multirun"} & set(words) else [overrides]
    for cell in cells:
        compose(cell, config_dir)


def test_the_type_checked_example_is_the_readmes() -> None:
    (shown,) = re.findall(r"```python\n(import asyncio\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert (ROOT / "tests" / "typing" / "readme.py").read_text() == shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_pages_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert "://" in link or (page.parent / link).exists(), link


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:engine|schemas|conf|tests|benchmarks|examples|\.ci)/[\w/.-]*)`", page.read_text("utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []
