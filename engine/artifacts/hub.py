"""Source `hub`: a repository of the Hugging Face hub, in the hub's own cache.

Honours HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE, as huggingface_hub does.
"""

from __future__ import annotations

import errno
import importlib.util
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from engine.artifacts import diffusers, settings
from engine.artifacts.job import Job, Notify
from engine.artifacts.resolve import Artifact
from engine.core.errors import SetupError
from engine.schemas.sources import HubSourceSpec

REACH_S = 8.0
"""The time that the hub may take to list the repository, name resolution included, in seconds."""

T = TypeVar("T")

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


class HubSource:
    """A repository of the Hugging Face hub. A file in the hub's cache is used without a request to the hub."""

    def __init__(self, spec: HubSourceSpec) -> None:
        self._spec = spec

    def __str__(self) -> str:
        return f"hub {self._spec.repo}@{self._spec.revision}"

    def fetch(self, job: Job) -> Artifact:
        """Raises SetupError when the hub can't be reached, refuses, or does not hold the files."""
        if importlib.util.find_spec("huggingface_hub") is None:
            raise SetupError('huggingface_hub is not installed; pip install "ipfs-accelerate[local]"')
        from huggingface_hub import constants

        path = None if job.again else self._cached()
        if path is None:
            if constants.HF_HUB_OFFLINE or job.offline:
                which = "HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else "storage.offline (or ENGINE_OFFLINE)"
                raise SetupError(f"not in the hub's cache, and {which} is set")
            path = self._download(job.notify)
            if not complete(path, self._spec.format):
                raise SetupError(
                    f"the repository has no {self._spec.format} files that match {', '.join(self._spec.files)}"
                )
        return Artifact(path, self._spec.format, str(self))

    def _cached(self) -> Path | None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        spec = self._spec
        try:
            found = snapshot_download(
                spec.repo, revision=spec.revision, allow_patterns=list(spec.files), local_files_only=True
            )
        except LocalEntryNotFoundError:
            return None
        except HFValidationError as error:
            raise SetupError(f"not a repository's name: {error}") from error
        path = Path(found)
        return path if complete(path, spec.format) else None

    def _download(self, notify: Notify) -> Path:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

        spec = self._spec
        try:
            _within(REACH_S, lambda: HfApi().model_info(spec.repo, revision=spec.revision, timeout=REACH_S), "the hub")
            notify(f"downloading {self} from the hub")
            with _quiet():
                # By the spec's name: the cache finds it again only under that name.
                return Path(snapshot_download(spec.repo, revision=spec.revision, allow_patterns=list(spec.files)))
        except GatedRepoError as error:
            raise SetupError("the repository is gated: accept its terms on the hub, then set HF_TOKEN") from error
        except RepositoryNotFoundError as error:
            raise SetupError(
                "the hub has no such repository, or it is private: check model.sources, or set HF_TOKEN"
            ) from error
        except HfHubHTTPError as error:
            raise SetupError(f"the hub refused: {str(error).splitlines()[0]}") from error
        except OSError as error:
            if error.errno in _DISK:
                raise
            raise _unreachable(error) from error
        except Exception as error:  # the hub's HTTP client differs between its versions, and so do its errors
            raise _unreachable(error) from error


def _unreachable(error: Exception) -> SetupError:
    from huggingface_hub import constants

    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return SetupError(f"the hub ({constants.ENDPOINT}) can't be reached ({reason})")


def complete(path: Path, layout: str) -> bool:
    """Returns True if a snapshot holds a whole model; after an interrupted download it does not."""
    if layout == "gguf":
        return any(path.rglob("*.gguf"))
    if layout == "openvino":
        return (path / "openvino_model.xml").is_file() and (path / "openvino_model.bin").is_file()
    if (path / diffusers.INDEX).is_file():
        return all(map(_weights_whole, diffusers.with_weights(path)))
    return _weights_whole(path) and (path / "config.json").is_file()


def _weights_whole(folder: Path) -> bool:
    index = next(folder.glob("*.safetensors.index.json"), None)
    if index is None:
        return any(folder.glob("*.safetensors"))
    shards = set(settings.read_object(index).get("weight_map", {}).values())
    return all((folder / shard).is_file() for shard in shards)


def _within(limit_s: float, call: Callable[[], T], what: str) -> T:
    """Returns the call's result. Raises TimeoutError: name resolution has no timeout of its own and can take
    minutes."""
    outcome: list[T] = []
    problem: list[BaseException] = []

    def attempt() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=attempt, name="hub-reach", daemon=True)
    thread.start()
    thread.join(limit_s)
    if problem:
        raise problem[0]
    if not outcome:
        raise TimeoutError(f"{what} did not answer within {limit_s:g} s")
    return outcome[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the hub's progress bars from the terminal, which shows ours."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
