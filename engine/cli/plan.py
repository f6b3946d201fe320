"""`engine plan`: what a run would do, without doing it; with -m, what each cell of a sweep would."""

from __future__ import annotations

import argparse

from engine.cli.command import OVERRIDES, Command, json_flag, multirun_flag
from engine.cli.terminal import print_json

OWN_ROWS = "-"
"""The value of --request without FILE."""
SHOWN_ROWS = 3
"""Rows of the run's own workload that are explained."""


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--request",
        metavar="FILE",
        nargs="?",
        const=OWN_ROWS,
        help=f"explain what each row of a JSONL file would meet; without FILE, the run's first {SHOWN_ROWS} rows",
    )
    multirun_flag(parser, "several values a key: plan every cell")
    json_flag(parser)


COMMAND = Command(
    summary="show what a run or a sweep would do, without doing it",
    words=OVERRIDES,
    flags=_flags,
    examples=(
        "plan provider=openai policy=interactive",
        'plan workload=csv workload.path=reviews.csv prompt.template="Rate: {{ review }}" --request',
        "plan -m provider=groq,openai policy.queue.concurrency=8,32",
    ),
    exit_codes=(0, 2, 3, 4, 5),
    means={
        0: "ready to run",
        2: "the command line or the configuration is not valid; of a sweep: of every cell",
        3: "of a sweep: some cells can't start",
        4: "valid, but this machine can't do it: key, file, package, device; of a sweep: no cell",
    },
)


def main(arguments: argparse.Namespace) -> int:
    """Returns 0 if the run could start, else the first problem's exit code."""
    if arguments.multirun:
        from engine.cli import plan_sweep

        return plan_sweep.main(arguments)
    from engine.cli import plan_run, plan_text
    from engine.config.compose import compose, dump_yaml

    composition = compose(arguments.words, arguments.config_dir)
    rows, most = arguments.request, plan_run.EXPLAINED_ROWS
    if rows == OWN_ROWS:
        rows, most = None, SHOWN_ROWS
    plan, code = plan_run.make(composition, rows, most if arguments.request else 0)
    spec = composition.spec.model_dump(mode="json")
    if arguments.json:
        print_json({**plan.as_dict(), "spec": spec})
    else:
        plan_text.show(plan)
        if arguments.debug:
            print("\nspec\n" + dump_yaml(spec))
    return code
