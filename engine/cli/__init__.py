"""The command line: one file a verb. `python -m engine`, or `engine`."""

from engine.cli.main import main

__all__ = ["main"]
