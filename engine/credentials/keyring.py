"""Keys in the system's keyring (macOS Keychain, Windows Credential Locker, Secret Service, …), through `keyring`.

A key is stored with `python -m keyring set ipfs-accelerate openai`: the service is ours, the user is the provider's
name; further keys are `openai_1`, `openai_2` and so on. The keyring is read by a child process without a terminal,
for some of its backends request a password there, and given up after some seconds, for others wait for a desktop that
without a user.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec

SERVICE = "ipfs-accelerate"
_LIMIT_S = 5.0
_READ = """
import json, sys
import keyring
service, user = sys.argv[1:]
found = {}
number = 0
while True:
    name = user if number == 0 else f"{user}_{number}"
    value = keyring.get_password(service, name)
    if value:
        found[name] = value
    elif number:
        break
    number += 1
print(json.dumps(found))
"""


def read(provider: str, environ: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """Returns the names and values of a provider's keys; empty without a keyring, or if it would need a password.

    `environ` adds to the environment of the child, where PYTHON_KEYRING_BACKEND chooses the keyring.
    """
    if find_spec("keyring") is None:
        return []
    try:
        done = subprocess.run(
            # -P: ignores a `keyring.py` in the folder that a run is started in.
            [sys.executable, "-P", "-c", _READ, SERVICE, provider],
            env=None if environ is None else {**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIMIT_S,
            start_new_session=True,
        )
        # It fails without a keyring, or with a locked one: its message could hold anything.
        found = json.loads(done.stdout) if done.returncode == 0 else {}
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []
    return [(f"keyring:{name}", value) for name, value in found.items()]


def place(provider: str) -> str:
    """Describes the place that `read` searches."""
    missing = "" if find_spec("keyring") else "; not installed: pip install 'ipfs-accelerate[keyring]'"
    return f"the system's keyring (service {SERVICE}, user {provider}{missing})"
