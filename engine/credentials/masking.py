"""Masks secrets in text, bytes and streams."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable
from typing import NoReturn
from urllib.parse import quote

MASK = "***"


_MASK_BYTES = MASK.encode()


_SECRET_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-[A-Za-z0-9_-]{16,}|gsk_[A-Za-z0-9]{16,}|hf_[A-Za-z0-9]{16,}|AIza[A-Za-z0-9_-]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|xai-[A-Za-z0-9]{16,}|r8_[A-Za-z0-9]{16,}|glpat-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|csk-[a-z0-9]{16,}"
    r"|pplx-[A-Za-z0-9]{16,}|nvapi-[A-Za-z0-9_-]{16,}|fw_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}"
    r"|bearer\s+[A-Za-z0-9._~+/=-]{8,}|[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@"
    r")|[?&](?:api[_-]?|access[_-]?|auth[_-]?)?(?:key|token|secret|password|sig)=[^&\s]{6,}",
    re.IGNORECASE,
)


_CUT_CHARS = 6
"""A text that stops this far into a secret, or further, shows too much of it."""


_URL_SAFE = str.maketrans("+/", "-_")


_WORD_CHARS = 12
"""A secret shorter than this may be a word, such as `none` or `lm-studio`, and so part of an honest answer."""


class Secret:
    """A value that prints as `***`, and can be neither pickled, copied nor written as JSON. `reveal()` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; only for the wire."""
        return self._value

    def forms(self) -> tuple[str, ...]:
        """How it may be written by somebody who repeats it: as it is, in JSON, in a URL, within base64 at any offset.
        Empty when it is so short that it may be a word."""
        value = self._value
        if len(value) < _WORD_CHARS:
            return ()
        quoted = quote(value, safe="")
        escaped = json.dumps(value)[1:-1]
        found = [
            value,
            quoted,
            re.sub("%..", lambda match: match[0].lower(), quoted),
            escaped,
            escaped.replace("/", "\\/"),
        ]
        found += [json.dumps(form)[1:-1] for form in found]  # what is escaped may stand in JSON in its turn
        for offset, start in ((0, 0), (1, 2), (2, 3)):
            # Only the characters that hold none of the neighbours' bits.
            whole = (offset + len(value)) * 8 // 6
            coded = b64encode(bytes(offset) + value.encode()).decode()[start:whole]
            found += [coded, coded.translate(_URL_SAFE)]
        return tuple(dict.fromkeys(found))

    def __repr__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret can't be pickled or copied; pass its name and resolve it where it is used")


def looks_like_secret(text: str) -> bool:
    """Whether a text holds what looks like a key, a bearer token or a password in a URL."""
    return _SECRET_SHAPES.search(text) is not None


def mask_shapes(text: str) -> str:
    """`text` with what looks like a key, a bearer token or a password in a URL masked."""
    return _SECRET_SHAPES.sub(MASK, text)


def redact(text: str, secrets: Iterable[Secret]) -> str:
    """`text` with every secret masked, however it is written, also one that the text's end cuts off."""
    for secret in secrets:
        value = secret.reveal()
        if not value:
            continue
        for form in secret.forms() or (value,):
            text = text.replace(form, MASK)
        bare = text.removesuffix("…")
        for length in range(min(len(value) - 1, len(bare)), _CUT_CHARS - 1, -1):
            if bare.endswith(value[:length]):
                text = bare[:-length] + MASK + text[len(bare) :]
                break
    return text


def mask_bytes(data: bytes, forms: Iterable[bytes]) -> bytes:
    """`data` with every one of `forms` masked; cheap where none is there, which is always but for a hostile server."""
    for form in forms:
        if form in data:
            data = data.replace(form, _MASK_BYTES)
    return data


class StreamMask:
    """Masks secrets in bytes that come in pieces. One that is cut between two pieces loses its second part."""

    __slots__ = ("_forms", "_keep", "_tail")

    def __init__(self, forms: tuple[bytes, ...]) -> None:
        self._forms = forms
        self._keep = max(map(len, forms), default=1) - 1
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """The piece as it may be shown."""
        joined = self._tail + data
        for form in self._forms:
            if form in joined:
                data = self._masked(data)
                joined = data
                break
        self._tail = joined[-self._keep :] if self._keep else b""
        return data

    def _masked(self, data: bytes) -> bytes:
        cut = len(self._tail)
        for form in self._forms:
            at = (self._tail + data).find(form)
            if 0 <= at < cut:
                data = _MASK_BYTES + data[at + len(form) - cut :]
                break
        return mask_bytes(data, self._forms)
