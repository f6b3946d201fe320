"""The text of --help. Reads the shipped options as files: no Hydra, no models."""

from __future__ import annotations

import textwrap

from engine.cli.verbs import EXIT_CODES, VERBS
from engine.core.option_files import GROUPS, conf_dir, options

HEAD = """\
IPFS Accelerate: a declarative, config-driven inference pipeline engine.

usage: python -m engine [VERB] [GROUP=OPTION …] [GROUP.KNOB=VALUE …] [FLAGS]

  python -m engine                                     answer the shipped sample with a local model
  python -m engine provider=groq workload=jsonl workload.path=rows.jsonl
  python -m engine -m provider=groq,ollama policy.queue.concurrency=8,32
  python -m engine runs resume outputs/20260101-120000-a1b2c3
"""

FLAGS = """\
flags:
  -m, --multirun      several values a key: run every combination, and compare them
  --config-dir DIR    a folder of options that adds to ours and overrides them
  --json              plan, check, runs: data instead of text
  --all               check: every provider for which a key is found
  --request FILE      plan: say what would become of each row of a JSONL file
  --debug             show the traceback of an error
  --version, -h, --help
  runs: --root DIR    where the runs are (outputs)
        prune --keep N [--dry-run] [--force]
  artifacts: without a verb, its verbs and their flags
  simulate: --host HOST --port PORT  where it listens (127.0.0.1, 8000); port 0 takes a free one
  matrix: --hardware cpu,openvino,cuda  --jobs N (1)  --time-limit SECONDS (300)  --memory-limit GIB (4)
          --resume  go on with the last run  --out DIR (outputs/matrix)
  bench:  seed [ROW …] --clock wall|cpu   quantization [GROUP=OPTION …]   --out DIR (outputs/bench)
  schema: --export DIR  write the schema of every group; with --config-dir, its options are known, too
"""


def text() -> str:
    found = options([conf_dir()])
    lines = [HEAD, "verbs:"]
    lines += [f"  {verb:<11} {what}" for verb, what in VERBS.items()]
    lines += ["", "groups and their options:"]
    for group in GROUPS:
        shown = textwrap.fill(
            " ".join(found[group]), 92, initial_indent="  ", subsequent_indent=" " * 14, break_on_hyphens=False
        )
        lines.append(f"  {group:<11} {shown.strip()}")
    subgroups = sorted(name.partition("/")[2] for name in found if name.startswith("policy/"))
    lines += [f"  policy/…    {' '.join(subgroups)}"]
    faults = textwrap.fill(
        " ".join(found["provider/faults"]), 92, initial_indent="  ", subsequent_indent=" " * 14, break_on_hyphens=False
    )
    lines += [f"  provider/faults  {faults.strip()}", "", FLAGS, "exit codes:"]
    lines += [f"  {code:<4} {what}" for code, what in EXIT_CODES.items()]
    return "\n".join(lines)
