"""`engine chat`: a conversation, each answer as it comes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from typing import Any

from engine.cli.command import OVERRIDES, Command
from engine.cli.terminal import is_terminal

COMMAND = Command(
    summary="talk with a model; an empty line or Ctrl-D ends",
    words=OVERRIDES,
    examples=("chat", "chat provider=groq model=llama-3.1-8b", 'chat prompt.system="You are a pirate."'),
    exit_codes=(0, 2, 3, 4),
    means={0: "the conversation has ended", 3: "a turn was not answered: the message says why"},
)


def main(arguments: argparse.Namespace) -> int:
    """Returns 0, or 3 if a turn was not answered. Raises ConfigError, SetupError."""
    from engine.cli import talk
    from engine.config.compose import compose
    from engine.core.errors import InferenceError

    spec = compose(arguments.words, arguments.config_dir).spec
    code = 0

    async def converse() -> None:
        nonlocal code
        messages = talk.opening(spec)
        async with talk.engine_of(spec) as engine:
            while text := await asyncio.to_thread(_question):
                messages.append({"role": "user", "content": text})
                try:
                    messages.append({"role": "assistant", "content": await talk.answered(engine, messages)})
                except InferenceError as error:
                    print(f"{error.kind}: {error.message}", file=sys.stderr)
                    messages.pop()  # the next turn does not repeat it
                    code = 3

    asyncio.run(converse())
    return code


def _question() -> Any:
    """Returns the next line without its end; None at the end of the input."""
    if is_terminal(sys.stdout):
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # lines can be edited
    try:
        return input("> " if is_terminal(sys.stdout) else "").strip() or None
    except EOFError:
        return None
