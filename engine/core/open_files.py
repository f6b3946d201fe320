"""The number of files and sockets that this process may have open (RLIMIT_NOFILE)."""

from __future__ import annotations

import errno
from contextlib import suppress

try:
    import resource
except ImportError:  # Windows, where sockets are not counted as files
    resource = None  # type: ignore[assignment]

MOST = 1_048_576
"""Set where there is no limit; Linux allows no more by default."""
TOO_MANY = (errno.EMFILE, errno.ENFILE)
"""Errors of a process, and of a machine, with too many open files."""
_OTHERS = 48
"""Files of a run that are no connections: the journal and its readers, logs, libraries, the event loop."""
_FEWEST = 4


def limit() -> int | None:
    """The number of files that may be open; None: there is no limit."""
    if resource is None:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> None:
    """Sets the limit as high as this user may; the one that a shell gives is meant for its other programs."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):  # macOS has a lower one that it does not name
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def connections(configured: int) -> int:
    """Returns the number of connections that the limit leaves room for, at least a few."""
    most = limit()
    return configured if most is None else max(_FEWEST, min(configured, most - _OTHERS))


def advice() -> str:
    """The next step for too many open files, as a clause."""
    most = limit()
    return (
        f"this process may have {most or 'no more'} files open: raise that with `ulimit -n`, or use fewer connections"
    )
