"""A run's directory: made exclusively, locked while in use, never overwritten."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shlex
import shutil
import string
import time
from pathlib import Path

import msgspec
import yaml  # type: ignore[import-untyped]

from engine.core.atomic_file import CantWrite, is_temporary, remove_temporary, write_atomic
from engine.core.errors import ConfigError, OutputError, nearest
from engine.runs.fingerprint import diff, plain_spec, spec_fingerprint
from engine.runs.journal import count_if_any
from engine.runs.lock import LOCK, RunLock
from engine.runs.manifest import Manifest, Provenance, iso_utc, read_manifest
from engine.schemas import RunSpec
from engine.workloads.open import Source, check_rows


class RunDirectory:
    """An open run: its paths, its manifest and its lock. Make it with `open_run`; `close` releases the lock."""

    def __init__(self, path: Path, lock: RunLock, manifest: Manifest, made: list[Path], resumed: bool) -> None:
        """`made`: the folders that did not exist before, outermost first."""
        self.path = path
        self._made = made
        self.manifest = manifest
        self.resumed = resumed
        self._lock = lock
        self.journal = path / "journal.sqlite"
        self.results = path / "results.jsonl"
        self.dead = path / "dead.jsonl"
        self.report_md = path / "report.md"
        self.report_html = path / "report.html"
        self.metrics = path / "metrics.json"
        self.log = path / "run.log"

    @property
    def resume_command(self) -> str:
        return resume_command(self.path)

    def write_manifest(self) -> None:
        """Raises OutputError."""
        write_atomic(self.path / "manifest.json", self.manifest.as_json())

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """A new run that failed before its first session, such as for a missing device, leaves nothing behind."""
        if kind is not None and not self.resumed and not self.manifest.sessions:
            _unmake(self.path, self._made)
        self.close()


def open_existing(path: Path) -> RunDirectory:
    """Locks an existing run, to read it or to make its report again. Raises OutputError."""
    lock = RunLock(path)
    try:
        return RunDirectory(path, lock, load_manifest(path), made=[], resumed=True)
    except OutputError:
        lock.release()
        raise


def resume_command(path: Path) -> str:
    """Returns the command that continues a run."""
    return f"python -m engine runs resume {shlex.quote(str(path))}"


def open_run(spec: RunSpec, source: Source, facts: Provenance | None = None) -> RunDirectory:
    """Returns this run's directory, locked and on disk: a new one, or with `output.resume` the one to continue.

    Call it after every other check, so that a refused run leaves nothing behind.
    Raises OutputError, and ConfigError for invalid rows under `workload.on_invalid=stop`.
    """
    if spec.workload.on_invalid == "stop":
        check_rows(source)
    if spec.output.resume is not None:
        if not never_began(Path(spec.output.resume).expanduser()):
            return _resume(spec, source)
        output = spec.output.model_copy(update={"dir": spec.output.resume, "resume": None})
        spec = spec.model_copy(update={"output": output})
    path, lock, made = _make(spec)
    manifest = Manifest(
        run=path.name,
        started=iso_utc(time.time()),
        targets=facts.targets if facts and facts.targets else [target.name for target in spec.targets],
        workload=source.describe(),
        spec_fingerprint=spec_fingerprint(spec),
        overrides=facts.overrides if facts else [],
        configs=facts.configs if facts else [],
        folder=os.getcwd(),
    )
    manifest.record_software()
    run = RunDirectory(path, lock, manifest, made, resumed=False)
    try:
        manifest.source = source.fingerprint()
        text = yaml.safe_dump(plain_spec(spec), sort_keys=False, allow_unicode=True, width=120)
        write_atomic(path / "spec.yaml", text.encode("utf-8"))
        manifest.spec_digest = _digest(text.encode("utf-8"))
        run.write_manifest()
    except (OutputError, ConfigError) as error:
        _unmake(path, made)
        lock.release()
        if isinstance(error, CantWrite):
            raise OutputError(f"{error}; nothing was begun: try again then") from error
        raise
    return run


def enter_start_folder(path: Path) -> None:
    """Changes to the folder where a run's command was given, so that relative paths in its spec lead to the same
    files. Stays here if that folder is gone. Raises OutputError if `path` does not hold a run."""
    folder = load_manifest(path).folder
    if folder and Path(folder).is_dir():
        os.chdir(folder)


def load_spec(path: Path) -> RunSpec:
    """The spec that a run was started with. Raises OutputError."""
    try:
        return RunSpec.model_validate(load_plain_spec(path))
    except ValueError as error:
        raise OutputError(f"{path / 'spec.yaml'} is not valid for this engine: {error}; start a new run") from error


def load_plain_spec(path: Path) -> dict[str, object]:
    """Returns spec.yaml as plain data, without the schema. Raises OutputError."""
    try:
        content = (path / "spec.yaml").read_bytes()
        plain = yaml.safe_load(content)
    except (OSError, yaml.YAMLError) as error:
        raise OutputError(f"{path / 'spec.yaml'} can't be read: {error}; is {path} a run directory?") from error
    if not isinstance(plain, dict):
        raise OutputError(f"{path / 'spec.yaml'} holds no spec; is {path} a run directory?")
    return plain


def load_manifest(path: Path) -> Manifest:
    """Raises OutputError."""
    try:
        return read_manifest((path / "manifest.json").read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise OutputError(f"{path / 'manifest.json'} can't be read: {error}; is {path} a run directory?") from error


def find_run(name: str, root: str | Path) -> Path:
    """A run by its path, or by its name under `root`. Raises OutputError with the nearest names."""
    for path in (Path(name).expanduser(), Path(root) / name):
        if (path / "manifest.json").is_file():
            return path
        if never_began(path):
            raise OutputError(
                f"output.resume: {path} was stopped before its run began; nothing is lost: give its command again, "
                f"with output.dir={path}"
            )
    try:
        known = [entry.name for entry in Path(root).iterdir() if (entry / "manifest.json").is_file()]
    except OSError:
        known = []
    hint = nearest(name, known) or f"there are no runs in {root}"
    raise OutputError(f"output.resume: {name} is not a run directory; {hint}")


def _make(spec: RunSpec) -> tuple[Path, RunLock, list[Path]]:
    """Makes a new directory; returns it, its lock, and the folders made for it, outermost first."""
    made: list[Path] = []
    unbegun = False
    try:
        if spec.output.dir is not None:
            path = Path(spec.output.dir).expanduser()
            unbegun = never_began(path)
            _make_parents(path, made)
        else:
            _make_parents(Path(spec.output.root).expanduser(), made)
            path = _make_unique(Path(spec.output.root).expanduser())
            made.append(path)
        lock = RunLock(path)
    except (OSError, OutputError) as error:
        for folder in reversed(made):
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OutputError):
            raise
        key = "output.dir" if spec.output.dir is not None else "output.root"
        where = spec.output.dir if spec.output.dir is not None else spec.output.root
        raise OutputError(f"{key}: {where} can't be made: {error.strerror}; choose a place you may write to") from error
    # Only with the lock held is it certain that no other process fills the same directory.
    if unbegun:
        remove_temporary(path)
        (path / "spec.yaml").unlink(missing_ok=True)
    found = sorted(entry.name for entry in path.iterdir() if entry.name != LOCK)
    if found:
        lock.release()
        if not (path / "manifest.json").is_file():
            (path / LOCK).unlink()
            raise OutputError(f"output.dir: {path} is not empty ({found[0]}, …); name a new or empty directory")
        raise OutputError(
            f"output.dir: {path} already holds a run; continue it with output.resume={path}, or name a new directory"
        )
    return path, lock, made


def _unmake(path: Path, made: list[Path]) -> None:
    """Removes what `_make` and `open_run` have put on the disk."""
    if path in made:
        shutil.rmtree(path, ignore_errors=True)
    else:
        for name in ("spec.yaml", "manifest.json", "run.log", LOCK):
            (path / name).unlink(missing_ok=True)
    for folder in reversed(made):
        with contextlib.suppress(OSError):  # another process has put something there by now
            folder.rmdir()


def _make_parents(path: Path, made: list[Path]) -> None:
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        made.append(folder)


def _make_unique(root: Path) -> Path:
    """A directory that did not exist: the time for the reader, six random characters for the rest."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    rng = random.SystemRandom()
    while True:
        path = root / f"{stamp}-{''.join(rng.choices(string.ascii_lowercase + string.digits, k=6))}"
        try:
            os.mkdir(path)
            return path
        except FileExistsError:
            continue


def never_began(path: Path) -> bool:
    """True if a run was killed here before it had a manifest: nothing was called, nothing can be lost."""
    try:
        names = {entry.name for entry in path.iterdir() if not is_temporary(entry)}
    except OSError:
        return False
    return LOCK in names and names <= {LOCK, "spec.yaml"}


def _resume(spec: RunSpec, source: Source) -> RunDirectory:
    path = find_run(spec.output.resume or "", spec.output.root)
    lock = RunLock(path)
    try:
        remove_temporary(path)
        manifest = load_manifest(path)
        if source.live and manifest.status == "finished":
            raise OutputError(
                f"output.resume: {path} is finished; its rows came from {source.name} and can't be read again"
            )
        _refuse_changes(path, manifest, spec, source)
        _refuse_lost_records(path, manifest)
    except (OutputError, ConfigError):
        lock.release()
        raise
    return RunDirectory(path, lock, manifest, [], resumed=True)


def _refuse_changes(path: Path, manifest: Manifest, spec: RunSpec, source: Source) -> None:
    if manifest.spec_fingerprint != spec_fingerprint(spec):
        _refuse_edited(path, manifest)
        before = load_plain_spec(path)
        with contextlib.suppress(ValueError):  # a spec that became invalid is compared as plain data
            # through the schema, so that fields newer than the run have their defaults
            before = plain_spec(RunSpec.model_validate(before))
        lines = diff(before, plain_spec(spec))
        if lines:
            raise OutputError(
                f"output.resume: {path} was started with another spec; change it back, or start a new run:\n"
                + "\n".join(f"  {line}" for line in lines)
            )
    now = source.fingerprint()
    if manifest.source is not None and now != manifest.source:
        was, size = manifest.source.get("bytes"), (now or {}).get("bytes")
        change = f"{was} bytes then, {size} now" if was != size else "the same size, other content"
        raise OutputError(
            f"output.resume: the workload {source.name} has changed since {path} was started ({change}); "
            "put the old file back, or start a new run"
        )


def _refuse_edited(path: Path, manifest: Manifest) -> None:
    """Raises OutputError for a spec.yaml that is not the one that the run was started with."""
    try:
        content = (path / "spec.yaml").read_bytes()
    except OSError as error:
        raise OutputError(f"{path / 'spec.yaml'} can't be read: {error}; put it back, or start a new run") from error
    if manifest.spec_digest and _digest(content) != manifest.spec_digest:
        raise OutputError(
            f"output.resume: {path / 'spec.yaml'}: got another file than the run was started with; expected the same, "
            "for one results.jsonl holds the answers of one spec. Fix: undo the edit, or start a new run; "
            "`runs resume RUN output.KEY=VALUE` changes knobs of output"
        )


def _refuse_lost_records(path: Path, manifest: Manifest) -> None:
    """Raises OutputError for a run whose journal has lost records: their calls would be made, and paid, again."""
    if not manifest.sessions:
        return
    journal = path / "journal.sqlite"
    found = count_if_any(journal)
    known = max(manifest.ok + manifest.failed, max(session.recorded_before for session in manifest.sessions))
    if found is not None and found >= known:
        return
    had = f"the {known} that the run had recorded" if known else "the one that the run wrote"
    got = "no journal" if not journal.exists() else "an empty journal" if not found else f"{found} records"
    results = path / "results.jsonl"
    kept = f"; the answers so far are in {results}" if results.exists() else ""
    raise OutputError(
        f"output.resume: {journal}: got {got}; expected {had}: a resume would make and pay every call again. "
        f"Fix: put the journal back, or start a new run{kept}"
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
