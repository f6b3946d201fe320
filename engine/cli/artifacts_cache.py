"""`engine artifacts fetch|cache …`: sources through the cache, and the cache itself."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from engine.artifacts.job import Job, megabytes
from engine.artifacts.resolve import SOURCES, Artifact, Source
from engine.cli.terminal import print_json, print_table
from engine.core.errors import ConfigError, SetupError
from engine.schemas.sources import SourceSpec, source_from_uri


def _fetch(words: list[str], job: Job, arguments: argparse.Namespace) -> None:
    job.again = arguments.force
    found = []
    for uri in words:
        source = _source(uri)
        try:
            found.append(source.fetch(job))
        except SetupError as error:
            raise SetupError(f"{source}: {error}") from error
    if arguments.json:
        print_json([_plain(artifact) for artifact in found])
    else:
        print("\n".join(str(artifact.path) for artifact in found))


def _source(uri: str) -> Source:
    """Raises ConfigError."""
    try:
        # By hand any file may be fetched; its layout is the user's matter.
        spec = TypeAdapter[Any](SourceSpec).validate_python(source_from_uri(uri, "safetensors"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = str(first["loc"][-1]) if first["loc"] else "URI"
        raise ConfigError(f"artifacts fetch: {where}: {first['msg']}") from None
    except ValueError as error:
        raise ConfigError(f"artifacts fetch: {error}") from None
    found: Source = SOURCES.get(spec.kind)(spec)
    return found


def _plain(artifact: Artifact) -> dict[str, Any]:
    return {"path": str(artifact.path), "cid": artifact.cid, "source": artifact.source}


def _verify(cids: list[str], job: Job, arguments: argparse.Namespace) -> None:
    known = [entry.cid for entry in job.cache.entries()]
    damaged = [cid for cid in cids or known if not job.cache.verify(cid)]
    if damaged:
        raise SetupError(
            f"not what was fetched any more, or not here: {', '.join(damaged)}. "
            "Next: engine artifacts cache remove CID, then fetch again"
        )
    print(f"{len(cids or known)} whole")


def _remove(cids: list[str], job: Job, arguments: argparse.Namespace) -> None:
    for cid in cids:
        if not job.cache.remove(cid):
            raise SetupError(f"{cid} is in use, or not in {job.cache.root}")
    print(f"{len(cids)} deleted")


def _prune(words: list[str], job: Job, arguments: argparse.Namespace) -> None:
    gone = job.cache.prune(arguments.max_bytes)
    print(f"{len(gone)} deleted, {megabytes(sum(entry.size_bytes for entry in gone))}")


def _list(words: list[str], job: Job, arguments: argparse.Namespace) -> None:
    entries = job.cache.entries()
    if arguments.json:
        names = ("cid", "name", "source", "size_bytes", "used_s", "in_use")
        print_json([{name: getattr(entry, name) for name in names} for entry in entries])
        return
    rows = [
        (
            entry.cid,
            megabytes(entry.size_bytes),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used_s)),
            f"{entry.source}{'  in use' if entry.in_use else ''}",
        )
        for entry in entries
    ]
    if rows:
        print_table(("content id", "size", "used", "source"), rows, plain_heads=False)
    print(f"{len(entries)} in {job.cache.root}, {megabytes(sum(entry.size_bytes for entry in entries))}")


RUN: dict[str, Callable[[list[str], Job, argparse.Namespace], None]] = {
    "fetch": _fetch,
    "cache list": _list,
    "cache verify": _verify,
    "cache remove": _remove,
    "cache prune": _prune,
}
