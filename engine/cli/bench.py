"""`engine bench seed [ROW …]` and `engine bench quantization [OVERRIDE …]`: measurements that can be repeated."""

from __future__ import annotations

import argparse
from pathlib import Path

from engine.cli.command import OVERRIDES, Command
from engine.core.errors import SetupError

CLOCKS = ("wall", "cpu")
_SEED = (
    "Models have their full size and fixed random weights: neither speed nor memory depends on the values. Each "
    "contender runs in a process of its own; memory is what the process grew by. A claim is the old system's, on a CPU "
    "that it does not name."
)
_CLOCK = {
    "wall": "Times are those that went by, on all cores.",
    "cpu": "Times are processor time of one thread: what one core needs if nothing else uses it.",
}


def _out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="outputs/bench", metavar="DIR", help="folder of the tables")


def _seed_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="wall: elapsed time; cpu: time of one thread")
    _out(parser)


def _rows() -> list[str]:
    from engine.bench.rows import ROWS

    return [row.name for row in ROWS]


COMMANDS = {
    "seed": Command(
        summary="measure the seed's rows against their claims",
        words="[ROW …]",
        flags=_seed_flags,
        examples=("bench seed", "bench seed gpt2 bert-tiny", "bench seed --clock cpu"),
        exit_codes=(0, 2, 4, 5),
        values=_rows,
    ),
    "quantization": Command(
        summary="measure what each quantization does to a model's speed, memory and answers",
        words=OVERRIDES,
        flags=_out,
        examples=(
            "bench quantization model=minilm-l6",
            "bench quantization model=smollm2-135m hardware=openvino",
            "bench quantization model=minilm-l6 --out outputs/bench",
        ),
        exit_codes=(0, 2, 4, 5),
    ),
}


def main(arguments: argparse.Namespace) -> int:
    """Returns 0 when it was measured. Raises ConfigError, SetupError, OutputError."""
    from engine.runtimes import devices

    words, what = arguments.words, arguments.command
    if not devices.installed("torch", "transformers"):
        raise SetupError(f"bench {what} needs torch and transformers. Next: {devices.TORCH_EXTRA}")
    out = Path(arguments.out)
    if what == "seed":
        return _seed(words, arguments.clock, out)
    return _quantization(words, arguments.config_dir, out)


def _seed(names: list[str], clock: str, out: Path) -> int:
    from engine.bench import report, seed

    outcomes = seed.run(names, clock, lambda line: print(line, flush=True))
    table = seed.table(outcomes)
    data = [{"row": each.row.name, "claim": each.row.claim, "figures": each.figures, "problems": each.problems}
            for each in outcomes]  # fmt: skip
    said = [f"Command: python -m engine bench seed --clock {clock}. {_SEED} {_CLOCK[clock]}"]
    files = report.write(out, "seed", "The seed's rows", said, table, data)
    print(table.markdown())
    print("\n".join(str(file) for file in files))
    return 0


def _quantization(words: list[str], config_dir: str | None, out: Path) -> int:
    from engine.bench import quantization, report
    from engine.config.compose import compose

    spec = compose(["provider=local", *words], config_dir).spec
    lines = quantization.run(spec, lambda line: print(line, flush=True))
    table = quantization.table(lines)
    said = [f"Command: python -m engine bench quantization {' '.join(words)}. {quantization.SAID}"]
    data = [vars(line) for line in lines]
    files = report.write(out, "quantization", f"Quantization of {spec.model.name}", said, table, data)
    print(table.markdown())
    print("\n".join(str(file) for file in files))
    return 0
