"""`engine run`: answer a workload; with -m a sweep."""

from __future__ import annotations

import argparse

from engine.cli.command import OVERRIDES, Command, multirun_flag


def _flags(parser: argparse.ArgumentParser) -> None:
    multirun_flag(parser, "several values a key: run every combination")


COMMAND = Command(
    summary="answer a workload; with -m a sweep over every combination of the values",
    words=OVERRIDES,
    flags=_flags,
    examples=(
        "run",
        "run provider=groq workload=jsonl workload.path=rows.jsonl",
        "run -m provider=groq,ollama policy.queue.concurrency=8,32",
    ),
    exit_codes=(0, 2, 3, 4, 5, 6, 7, 130),
    instead={"--dry-run": "engine plan", "--request": "engine plan --request", "--resume": "engine runs resume"},
)


def main(arguments: argparse.Namespace) -> int:
    if arguments.multirun:
        from engine.cli import sweep

        return sweep.main(arguments)
    from engine.cli.answer import answer, provenance
    from engine.config.compose import compose

    composition = compose(arguments.words, arguments.config_dir)
    return answer(composition.spec, provenance(composition))
