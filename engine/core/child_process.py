"""Child processes that run a module of this installation."""

from __future__ import annotations

import os
import sys


def module_command(module: str, *arguments: str) -> list[str]:
    """Returns the command that runs `module` with this interpreter, on the same module path as this process.

    `python -m` puts the working directory first on that path, where a user's own `engine.py` would hide the package;
    `-P` keeps it off unless this process has it too.
    """
    inherited = sys.path[:1] in ([""], [os.getcwd()])
    return [sys.executable, *([] if inherited else ["-P"]), "-m", module, *arguments]
