"""A table of measurements as text, Markdown, HTML and JSON, with the machine and the command it was made on."""

from __future__ import annotations

import html
import importlib.metadata
import importlib.util
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.core.errors import OutputError

_PACKAGES = ("torch", "transformers", "openvino", "torchao", "nncf")


@dataclass(frozen=True, slots=True)
class Table:
    """Heads and rows of text."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [self.heads, ["---"] * len(self.heads), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

    def as_html(self) -> str:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.heads)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def number(value: float | None) -> str:
    """Formats a number with three significant digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """Returns the facts that the figures depend on: cores, processor, versions, load."""
    versions = {
        name: importlib.metadata.version(name) for name in _PACKAGES if importlib.util.find_spec(name) is not None
    }
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return {
        "cores": os.cpu_count(), "processor": _processor(), "python": platform.python_version(), **versions,
        "load_average": load,
    }  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(folder: Path, name: str, title: str, said: Sequence[str], table: Table, data: Any) -> list[Path]:
    """`NAME.md`, `NAME.html` and `NAME.json` in the folder. Raises OutputError."""
    about = machine()
    line = ", ".join(f"{key} {value}" for key, value in about.items())
    paragraphs = [*said, f"Machine: {line}."]
    markdown = "\n\n".join([f"# {title}", *paragraphs, table.markdown()]) + "\n"
    style = (
        "body{font:15px system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em}"
        "table{border-collapse:collapse}th,td{border:1px solid #bbb;padding:.3em .6em;text-align:left}"
        "th{background:#eee}"
    )
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{style}</style>"
        f"<h1>{html.escape(title)}</h1>"
        + "".join(f"<p>{html.escape(text)}</p>" for text in paragraphs)
        + table.as_html()
        + "</html>\n"
    )
    whole = json.dumps({"title": title, "machine": about, "rows": data}, indent=2, ensure_ascii=False) + "\n"
    files = {f"{name}.md": markdown, f"{name}.html": page, f"{name}.json": whole}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"--out {folder}: can't be written: {error}") from error
    return [folder / file for file in files]
