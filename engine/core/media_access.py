"""The permission of a request to read media."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class Media:
    """The bytes of an image, an audio file or a document."""

    data: bytes = field(repr=False)
    filename: str
    content_type: str

    @property
    def base64(self) -> str:
        return base64.b64encode(self.data).decode("ascii")

    @property
    def url(self) -> str:
        """As a `data:` URL."""
        return f"data:{self.content_type};base64,{self.base64}"

    @property
    def extension(self) -> str:
        """Of its name, without the dot."""
        return self.filename.rpartition(".")[2].lower()


@dataclass(frozen=True, slots=True)
class MediaAccess:
    """Permits what may be read for one caller's requests. Without arguments: only the bytes in the request itself."""

    root: Path | None = None
    """The folder whose files may be read, and from which relative paths start; None: no file at all."""
    urls: bool = False
    """Permits https URLs."""
    max_bytes: int = 64 * 1024 * 1024
    """The most that one value may have."""
    timeout_s: float = 30.0
    """The longest that reading a URL may take."""


INLINE_ONLY = MediaAccess()
"""For callers who are not this machine's user, such as the clients of a server."""
