"""`engine ask`: one question, and its answer as it comes."""

from __future__ import annotations

import argparse
import asyncio
import sys

from engine.cli.command import OVERRIDES, Command

COMMAND = Command(
    summary="answer one question, streamed",
    words=f"QUESTION {OVERRIDES}",
    examples=(
        'ask "What is the capital of France?"',
        'ask "Name a prime." provider=groq model=llama-3.1-8b',
        'ask "Hello" prompt.system="Answer in French." workload.parameters={max_tokens:32}',
    ),
    exit_codes=(0, 2, 3, 4),
    means={0: "answered", 3: "not answered: the message says why"},
)


def main(arguments: argparse.Namespace) -> int:
    """Returns 0 if the question was answered, else 3. Raises ConfigError, SetupError."""
    from engine.cli import talk
    from engine.config.compose import compose
    from engine.core.errors import ConfigError, InferenceError

    overrides = [word for word in arguments.words if talk.OVERRIDE.match(word) and "=" in word]
    question = " ".join(word for word in arguments.words if word not in overrides).strip()
    if not question:
        raise ConfigError(f"ask: got no question; expected one. Fix: engine {COMMAND.examples[0]}")
    spec = compose(overrides, arguments.config_dir).spec

    async def answer() -> None:
        async with talk.engine_of(spec) as engine:
            await talk.answered(engine, [*talk.opening(spec), {"role": "user", "content": question}])

    try:
        asyncio.run(answer())
    except InferenceError as error:
        print(f"{error.kind}: {error.message}", file=sys.stderr)
        return 3
    return 0
