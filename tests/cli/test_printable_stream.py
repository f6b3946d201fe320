"""Standard output and standard error without what steers a terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from engine.cli.main import main
from engine.cli.printable_stream import PrintableStream

ESCAPE = "\x1b[2J\x1b]0;t\x07\x9b31m\u202e"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_stream_escapes_what_steers(kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = kind()
    print(f"a{ESCAPE}\tb\nc", file=PrintableStream(stream))
    assert stream.getvalue() == "a\\u001b[2J\\u001b]0;t\\u0007\\u009b31m\\u202e\tb\nc\n"


def test_a_terminal_keeps_our_styles_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    PrintableStream(stream).write("\x1b[31merror\x1b[0m \x1b[8mhidden\x1b[31A")
    assert stream.getvalue() == "\x1b[31merror\x1b[0m \\u001b[8mhidden\\u001b[31A"


@pytest.mark.slow
def test_answers_and_ids_reach_the_terminal_as_text_and_files_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    forged = "2026-01-01T00:00:00.000Z ERROR engine: forged"
    rows = [{"id": f"a{ESCAPE}\n{forged}", "prompt": ESCAPE}, {"id": f"b{ESCAPE}\n{forged}", "messages": ESCAPE}]
    Path("in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ["provider=simulated", "workload=jsonl", "workload.path=in.jsonl"]
    assert main(["run", *words, "output.dir=run"]) == 3
    for command in (["runs", "report", "run"], ["runs", "show", "run"], ["runs", "list", "--root", "."]):
        main(command)
    said = capsys.readouterr()
    for text in (said.out, said.err, Path("run/run.log").read_text()):
        assert not set(text) & set("\x1b\x07\x9b\u202e")
        assert not [line for line in text.splitlines() if line.startswith("2026-01-01")]
    results = [json.loads(line) for line in Path("run/results.jsonl").read_text().splitlines()]
    assert results[0]["custom_id"] == rows[0]["id"]
