"""The text of --help. Reads the shipped options as files: no Hydra, no models."""

from __future__ import annotations

import textwrap
from pathlib import Path

from engine.cli.verbs import EXIT_CODES, VERBS
from engine.core.errors import ConfigError
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
  -m, --multirun      run, plan: several values a key, every combination
  --config-dir DIR    a folder of options that adds to ours and overrides them; --help lists them too
  --debug             show the traceback of an error
  --version, -h, --help
  engine VERB --help  the flags of a verb, examples, exit codes
"""


def text(config_dir: str | None = None) -> str:
    """Returns the overview: verbs, groups with their options, flags, exit codes. Raises ConfigError."""
    folders = [conf_dir()]
    if config_dir is not None:
        folder = Path(config_dir)
        if not folder.is_dir():
            raise ConfigError(f"--config-dir: got {config_dir}; expected a folder. Fix: check the path")
        folders.append(folder)
    found = options(folders)
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
