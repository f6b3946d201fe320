"""Lines of results.jsonl and dead.jsonl: how they are written into the journal and made into files."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from engine.core.atomic_file import replacing
from engine.core.errors import OutputError
from engine.core.request import Result
from engine.runs.directory import RunDirectory
from engine.runs.fingerprint import request_fingerprint
from engine.runs.journal import entries
from engine.runs.media_files import MediaFiles
from engine.workloads.open import Row

_encode = msgspec.json.encode


def digest_of(letter: bytes) -> int:
    """Returns 64 bits of BLAKE2b over a row as it was read, as SQLite's signed integer."""
    return int.from_bytes(hashlib.blake2b(letter, digest_size=8).digest(), "big", signed=True)


def payload(run: str, row: Row, result: Result) -> bytes:
    """Returns the journal's payload of a row: its line of results.jsonl and, if it failed, that of dead.jsonl.

    Raises TypeError for a reply that JSON can't represent.
    """
    record: dict[str, Any] = result.engine.as_dict()
    if row.request is not None:
        record["request"] = request_fingerprint(row.request)
    if result.usage is not None and all(attempt.usage is None for attempt in result.engine.attempts):
        record["usage"] = result.usage.as_dict()
    response = None
    if result.error is None:
        attempts = result.engine.attempts
        request_id = attempts[-1].provider_request_id if attempts else None
        response = {"status_code": 200, "request_id": request_id or result.id, "body": result.body}
    line = _encode(
        {
            "id": f"{run}/{row.index + 1}",
            "custom_id": row.id,
            "response": response,
            "error": None if result.error is None else result.error.as_dict(),
            "engine": record,
        }
    )
    return line if result.error is None else line + b"\n" + row.letter()


def materialise(run: RunDirectory, rows: int, media: MediaFiles | None = None) -> None:
    """Makes results.jsonl and dead.jsonl from the journal, in input order, both or neither, in constant memory.

    The lines are not parsed: statistics come after it, and can't keep the results from being written. `media` makes
    files of images and audio; None: they stay in the lines. Raises OutputError when the journal does not hold each
    of the `rows` rows exactly once, or a file can't be written.
    """
    with replacing(run.results, run.dead) as (results, dead):
        expected = 0
        for entry in entries(run.journal):
            if entry.index != expected:
                break
            expected += 1
            line, _, letter = entry.payload.partition(b"\n")
            if media is not None:
                line = media.put(line, entry.index)
            results.write(line + b"\n")
            if not entry.ok:
                dead.write(letter + b"\n")
        if expected != rows:
            raise OutputError(f"{run.journal}: {rows} rows were read, but row {expected + 1} is not recorded; resume")
        if media is not None:
            media.close()
