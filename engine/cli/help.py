"""The texts of --help. The overview reads the shipped options as files: no Hydra, no models."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.cli.command import Command, folder
from engine.cli.exit_codes import EXIT_CODES
from engine.cli.names import config_dir_of, walk
from engine.cli.parser import code_lines, parser_of
from engine.cli.verbs import VERBS, commands_of
from engine.core.errors import ConfigError
from engine.core.option_files import conf_dir, options

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


def overview(config_dir: str | None = None) -> str:
    """Returns the help of the engine: verbs, groups with their options, flags, exit codes. Raises ConfigError."""
    lines = [HEAD, "verbs:"]
    lines += [f"  {verb:<11} {summary}" for verb, summary in VERBS.items()]
    found = options([conf_dir(), *_folders(config_dir)])
    stages = {group.partition("/")[2]: found.pop(group) for group in sorted(found) if group.startswith("policy/")}
    lines += ["", "groups and their options:", *_options(found), f"  policy/…    {' '.join(stages)}"]
    return "\n".join([*lines, "", FLAGS, "exit codes:", code_lines(EXIT_CODES)])


def of(verb: str, words: Sequence[str]) -> str:
    """Returns the help of a verb or of its sub-verb. Raises ConfigError."""
    commands = commands_of(verb)
    name, _ = walk(verb, commands, words)
    if name not in commands:
        return _subverbs(name, {each: commands[each] for each in commands if each.startswith(f"{name} ")})
    text = parser_of(name, commands[name]).format_help().rstrip()
    config_dir = config_dir_of(words)
    if config_dir is None:
        return text
    own = {group: names for group, names in options(_folders(config_dir)).items() if names}
    return "\n".join([text, "", f"options of {config_dir}:", *_options(own)])


def _subverbs(name: str, commands: Mapping[str, Command]) -> str:
    """Returns the help of a verb that has sub-verbs."""
    usages = {each: f"{each.removeprefix(f'{name} ')} {command.words}".strip() for each, command in commands.items()}
    width = max(map(len, usages.values()))
    verb = name.partition(" ")[0]
    summary = VERBS[verb]
    lines = [f"usage: engine {name} COMMAND [flags]", "", f"{summary[0].upper()}{summary[1:]}.", "", "commands:"]
    lines += [f"  {usages[each]:<{width}}  {command.summary}" for each, command in commands.items()]
    lines += ["", f"The flags of a command: engine {name} COMMAND --help", "", "examples:"]
    examples = [command.examples[0] for command in commands.values()]
    examples += [example for command in commands.values() for example in command.examples[1:]]
    lines += [f"  engine {example}" for example in examples[:3]]
    codes = {code: text for command in commands.values() for code, text in command.codes().items()}
    return "\n".join([*lines, "", "exit codes:", code_lines(dict(sorted(codes.items())))])


def _folders(config_dir: str | None) -> list[Path]:
    try:
        return [] if config_dir is None else [Path(folder(config_dir))]
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"--config-dir: {error}. Fix: check the path") from error


def _options(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the lines that list the options of each group."""
    return [
        textwrap.fill(
            " ".join(names), 92, initial_indent=f"  {group:<11} ", subsequent_indent=" " * 14, break_on_hyphens=False
        )
        for group, names in found.items()
    ]
