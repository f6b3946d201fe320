"""`engine artifacts …`: model files by hand. Objects of S3 stores, any source through the cache, the cache itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from engine.cli.command import Command, config_dir_flag, json_flag, whole_number
from engine.core.errors import SetupError

METHODS = ("GET", "PUT", "HEAD", "DELETE")
_CODES = (0, 2, 4)


def _flags(parser: argparse.ArgumentParser) -> None:
    json_flag(parser)
    config_dir_flag(parser)


def _force(text: str) -> Callable[[argparse.ArgumentParser], None]:
    def flags(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--force", action="store_true", help=text)
        _flags(parser)

    return flags


def _presign(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--expires", type=whole_number(1), default=3600, metavar="SECONDS", help="lifetime in seconds")
    parser.add_argument("--method", choices=METHODS, default="GET", help="the permitted method")
    _flags(parser)


def _shrink(parser: argparse.ArgumentParser) -> None:
    text = "bytes that may stay (default: storage.cache_max_bytes)"
    parser.add_argument("--max-bytes", type=whole_number(0), metavar="N", help=text)
    _flags(parser)


def _command(
    summary: str, words: str, *examples: str, flags: Callable[[argparse.ArgumentParser], None] = _flags
) -> Command:
    shown = tuple(f"artifacts {example}" for example in examples)
    return Command(summary, shown, words=words, changes="storage", flags=flags, exit_codes=_CODES)


COMMANDS = {
    "fetch": _command(
        "fetch a source into the cache, and print its path",
        "URI …",
        "fetch hub://owner/model",
        "fetch https://host/model.gguf --force",
        "fetch s3://bucket/models/a.gguf",
        flags=_force("fetch it even if it is in the cache"),
    ),
    "get": _command(
        "get an object, or all below a prefix ending with /",
        "s3://BUCKET/KEY [PATH]",
        "get s3://bucket/models/a.gguf",
        "get s3://bucket/models/ models",
        "get s3://bucket/models/a.gguf a.gguf --force",
        flags=_force("overwrite the files that exist"),
    ),
    "put": _command(
        "put a file or a folder",
        "PATH s3://BUCKET/KEY",
        "put a.gguf s3://bucket/models/",
        "put models s3://bucket/models",
        "put a.gguf s3://bucket/models/b.gguf --json",
    ),
    "list": _command(
        "list objects",
        "s3://BUCKET[/PREFIX]",
        "list s3://bucket",
        "list s3://bucket/models",
        "list s3://bucket/models --json",
    ),
    "head": _command(
        "show an object's size, date, ETag and version",
        "s3://BUCKET/KEY[?version=ID]",
        "head s3://bucket/models/a.gguf",
        "head 's3://bucket/models/a.gguf?version=3'",
        "head s3://bucket/models/a.gguf --json",
    ),
    "delete": _command(
        "delete objects, or all below a prefix ending with /",
        "s3://BUCKET/KEY …",
        "delete s3://bucket/models/a.gguf",
        "delete s3://bucket/models/a s3://bucket/models/b",
        "delete s3://bucket/models/ --force",
        flags=_force("delete all objects below a prefix"),
    ),
    "presign": _command(
        "print a URL that works without credentials",
        "s3://BUCKET/KEY",
        "presign s3://bucket/models/a.gguf",
        "presign s3://bucket/models/a.gguf --expires 60",
        "presign s3://bucket/models/b --method PUT",
        flags=_presign,
    ),
    "cache list": _command("list the cache", "", "cache list", "cache", "cache list --json"),
    "cache verify": _command(
        "compare cached files with their content ids",
        "[CID …]",
        "cache verify",
        "cache verify CID",
        "cache verify CID CID",
    ),
    "cache remove": _command(
        "delete entries of the cache",
        "CID …",
        "cache remove CID",
        "cache remove CID CID",
        "cache remove CID storage.cache_dir=DIR",
    ),
    "cache prune": _command(
        "delete the least recently used entries",
        "",
        "cache prune",
        "cache prune --max-bytes 0",
        "cache prune --max-bytes 20000000000",
        flags=_shrink,
    ),
}


def main(arguments: argparse.Namespace) -> int:
    """Raises ConfigError, SetupError."""
    from engine.artifacts.resolve import disk_problem, job_of
    from engine.cli import artifacts_cache, artifacts_store
    from engine.config.compose import compose

    storage = compose(arguments.changes, arguments.config_dir).spec.storage
    job = job_of(storage, notify=lambda line: print(line, file=sys.stderr, flush=True))
    run = artifacts_store.RUN | artifacts_cache.RUN
    try:
        run[arguments.command](arguments.words, job, arguments)
    except OSError as error:
        raise SetupError(f"artifacts {arguments.command}: {disk_problem(error, job.cache.root)}") from error
    return 0
