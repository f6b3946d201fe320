"""What importing costs: `import engine` and `--help` load nothing heavy. A fresh process each; no timing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = {"hydra", "omegaconf", "yaml", "antlr4"}
MODELS = {"torch", "transformers", "openvino", "openvino_genai", "tokenizers", "numpy", "pyarrow", "huggingface_hub"}
NETWORK = {"aiohttp", "httpx"}
REPORTS = {"jinja2", "tqdm", "sqlite3", "prometheus_client"}


def loaded_by(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after `code`."""
    report = "\nimport sys\nprint('\\nLOADED', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code + report],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return set(done.stdout.rpartition("LOADED")[2].split())


@pytest.mark.slow
def test_importing_the_engine_loads_no_heavy_library() -> None:
    assert loaded_by("import engine") & (CONFIGURATION | MODELS | NETWORK | REPORTS) == set()


@pytest.mark.slow
def test_help_loads_no_heavy_library() -> None:
    code = "from engine.cli import main\nassert main(['--help']) == 0"
    assert loaded_by(code) & (CONFIGURATION | MODELS | NETWORK | REPORTS) == set()


@pytest.mark.slow
def test_an_engine_of_a_simulated_provider_loads_no_model_library_and_no_client() -> None:
    code = "from engine import Engine\nEngine.compose(['provider=simulated'])"
    assert loaded_by(code) & (MODELS | NETWORK | {"prometheus_client"}) == set()


@pytest.mark.slow
def test_an_engine_of_a_remote_provider_loads_only_the_client_it_uses() -> None:
    code = (
        "from engine import Engine\n"
        "Engine.compose(['provider=ollama', 'provider.transport.kind=aiohttp', 'model=remote', 'model.name=any'])"
    )
    assert loaded_by(code) & (MODELS | NETWORK) <= {"aiohttp"}


def test_the_specs_import_nothing_else_of_the_engine() -> None:
    named = {
        node.module
        for file in (ROOT / "schemas").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("engine")
    }
    assert named
    assert all(module.split(".")[:2] == ["engine", "schemas"] for module in named)
