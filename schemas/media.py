"""Group `media`: which images, audio and documents are read for the rows and for callers of the library."""

from pydantic import Field

from engine.schemas.base import Spec


class MediaSpec(Spec):
    """The kinds of media that a row may name instead of holding them."""

    root: str | None = None
    """The folder whose files may be read, and from which relative paths start. null: the folder of workload.path,
    else the working directory."""
    allow_urls: bool = False
    """True: https URLs are read here. Those of images in messages are left to the provider in any case."""
    max_bytes: int = Field(64 * 1024 * 1024, ge=1)
    """The most that one file may have, in bytes."""
    timeout_s: float = Field(30.0, gt=0)
    """The longest that reading one URL may take, in seconds."""
