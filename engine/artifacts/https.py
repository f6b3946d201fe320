"""Source `https`: a file of a web server."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from engine.artifacts.job import Job, Progress
from engine.artifacts.resolve import Artifact
from engine.artifacts.web import Again, Web
from engine.core.cid import cid_of_digest, cid_of_json
from engine.core.errors import SetupError
from engine.credentials.keys import bearer_token
from engine.credentials.masking import mask_shapes
from engine.schemas.sources import HttpsSourceSpec


class HttpsSource:
    """A file of a web server, in our cache. A cached file is used without a request to the server."""

    def __init__(self, spec: HttpsSourceSpec) -> None:
        self._spec = spec

    def __str__(self) -> str:
        parts = urlsplit(self._spec.url)
        return mask_shapes(f"{parts.scheme}://{parts.netloc}{parts.path}")

    def fetch(self, job: Job) -> Artifact:
        """Raises SetupError: no such file, refused, another digest, too large, or interrupted too often."""
        spec = self._spec
        name = _file_name(spec.url)
        held = None
        if spec.sha256 is not None and not job.again:
            held = job.cache.use(cid_of_digest(bytes.fromhex(spec.sha256)), name)
        if held is None:
            key = cid_of_json({"kind": "https", "url": spec.url, "sha256": spec.sha256})
            held = job.once(key, str(self), lambda folder: self._download(folder, job, name))
        return Artifact(held.path, spec.format, str(self), held.cid, held)

    def _download(self, folder: Path, job: Job, name: str) -> tuple[Path, str, str]:
        spec = self._spec
        token = bearer_token(spec.token_env) if spec.token_env else None
        private = {"authorization": f"Bearer {token.reveal()}"} if token else {}
        job.notify(f"downloading {self}")

        async def fetch() -> str:
            async with Web(job) as web:
                return await web.download(spec.url, folder / "file", spec.sha256, private, Progress(job, str(self)))

        try:
            digest = job.run(fetch())
        except Again as error:
            raise SetupError(str(error)) from error
        return folder / "file", cid_of_digest(bytes.fromhex(digest)), name


def _file_name(url: str) -> str:
    """Returns the last part of a URL's path, as a file name that can't leave its folder."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    kept = "".join(character if character.isalnum() or character in "-_.+" else "_" for character in name)
    return kept.lstrip(".")[: os.pathconf("/", "PC_NAME_MAX") // 2] or "file"
