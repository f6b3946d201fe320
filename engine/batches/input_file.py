"""Tells whether a job was refused only because the file of its requests is not ready yet."""

from __future__ import annotations

import re

from engine.batches.client import BatchClient
from engine.core.errors import InferenceError

_REFUSALS = (400, 404, 409, 412, 422, 425)
_NOT_READY = re.compile(
    r"\bfile\b.*(not (yet )?(been )?(ready|processed|available|found|in an? \w+ state)|still\b|pending|processing"
    r"|being processed|wait)|no such file",
    re.IGNORECASE | re.DOTALL,
)
"""The words of Azure (`invalidFileState`), of Gemini ("not in an ACTIVE state") and of replicas that lag behind."""
_CODES = frozenset(("invalidfilestate", "filenotready", "filenotprocessed", "filenotfound"))


def may_come(error: InferenceError, file: str | None) -> bool:
    """True for a refusal that concerns a file which was uploaded a moment ago."""
    if file is None or error.status not in _REFUSALS:
        return False
    code = "".join(filter(str.isalnum, error.code or "")).lower()
    return error.status == 404 or code in _CODES or _NOT_READY.search(error.message) is not None


async def is_pending(client: BatchClient, file: str, key: str | None) -> bool | None:
    """Reads the file's state: True while the provider works on it, False afterwards; None if it is not reported."""
    try:
        return await client.file_pending(file, key)
    except InferenceError:
        return None
