"""Masks secrets in text, bytes and streams."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable
from functools import lru_cache
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
"""A text that ends after this many characters of a secret, or more, shows too much of it."""


_URL_SAFE = str.maketrans("+/", "-_")


_WORD_CHARS = 12
"""A secret shorter than this may be a word, such as `none` or `lm-studio`, and so part of an honest answer."""


class Secret:
    """A value that prints as `***`, and can be neither pickled, copied nor written as JSON. `reveal()` gives it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Returns the value itself; only for the wire."""
        return self._value

    def forms(self) -> tuple[str, ...]:
        """Returns the forms in which a text may repeat it: as it is, in JSON, in a URL, within base64 at any offset.
        Empty if it is so short that it may be a word."""
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
        found += [json.dumps(form)[1:-1] for form in found]  # an escaped form may be in JSON, too
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
    """Returns True if part of a text looks like a key, a bearer token or a password in a URL."""
    return _SECRET_SHAPES.search(text) is not None


def mask_shapes(text: str) -> str:
    """Masks each part of `text` that looks like a key, a bearer token or a password in a URL."""
    return _SECRET_SHAPES.sub(MASK, text)


def redact(text: str, secrets: Iterable[Secret]) -> str:
    """Returns `text` with every secret masked, however it is written, also one that the text's end cuts off."""
    for secret in secrets:
        value = secret.reveal()
        if not value:
            continue
        text = mask_secret(text, secret)
        if not secret.forms():
            continue
        bare = text.removesuffix("…")
        for length in range(min(len(value) - 1, len(bare)), _CUT_CHARS - 1, -1):
            if bare.endswith(value[:length]):
                text = bare[:-length] + MASK + text[len(bare) :]
                break
    return text


def mask_secret(text: str, secret: Secret) -> str:
    """Returns `text` with a whole secret masked. A short one may be a word: then only where the text names a key."""
    forms = secret.forms()
    if forms:
        data = mask_bytes(text.encode("utf-8", "surrogatepass"), tuple(form.encode() for form in forms))
        return data.decode("utf-8", "surrogatepass")
    value = secret.reveal()
    if value not in text:
        return text
    whole = rf"(?<![\w-]){re.escape(value)}(?![\w-])"
    if len(value) >= _NO_WORD_CHARS and not value.replace("-", "").replace("_", "").isalpha():
        return re.sub(whole, MASK, text)
    return re.sub(_NAMES_KEY + whole, lambda found: found["names"] + MASK, text)


_NO_WORD_CHARS = 8
"""A secret of this length that has more than letters is not a word."""
_NAMES_KEY = (
    r"(?P<names>(?i:key|token|secret|password|credentials?|bearer|basic|authorization)\b\W*"
    r"(?:(?i:provided|given|supplied|received|used|value|header|bearer|basic|is|was|got|of)\b\W*)*)"
)


def mask_bytes(data: bytes, forms: Iterable[bytes]) -> bytes:
    """Returns `data` with every one of `forms` masked, also where single characters are escaped.

    Cheap if none is there, which is the rule except with a hostile server.
    """
    forms = tuple(forms)
    return _pattern(forms).sub(_MASK_BYTES, data) if _holds(data, forms) else data


_ESCAPES = re.compile(rb"\\+(?:u00([0-7][0-9a-fA-F])|(/))|%([0-7][0-9a-fA-F])")
"""A character as JSON (once or several times over) and URLs may write it."""


_ESCAPED = re.compile(rb"\\u00[2-7]").search
_QUOTED = re.compile(rb"%[2-7][0-9a-fA-F]").search
"""Each begins with a fixed character, so that a text of other characters costs little."""


def _holds(data: bytes, forms: tuple[bytes, ...]) -> bool:
    if any(form in data for form in forms):
        return True
    if not forms or not (_ESCAPED(data) or _QUOTED(data) or b"\\/" in data):
        return False
    plain = _ESCAPES.sub(lambda found: found[2] or bytes.fromhex((found[1] or found[3]).decode()), data)
    return any(form in plain for form in forms)


@lru_cache(maxsize=256)
def _pattern(forms: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """Returns a pattern of all the forms, longest first, each character as it is or escaped."""
    return re.compile(b"|".join(b"".join(map(_written, form)) for form in sorted(forms, key=len, reverse=True)))


def _written(code: int) -> bytes:
    plain = re.escape(bytes([code]))
    if code >= 128:
        return plain
    digits = b"".join(b"[%c%c]" % (digit, digit ^ 32) if digit > 57 else b"%c" % digit for digit in b"%02x" % code)
    slashes = rb"\\*" if code == ord("/") else b""
    # The escapes come first: a backslash and a percent sign also begin an escape.
    return b"(?:\\\\+u00%s|%%%s|%s%s)" % (digits, digits, slashes, plain)


class StreamMask:
    """Masks secrets in bytes that come in pieces. One that is cut between two pieces loses its second part."""

    __slots__ = ("_forms", "_keep", "_tail")

    def __init__(self, forms: tuple[bytes, ...]) -> None:
        self._forms = forms
        # The first form is the plain secret, the only one that may be escaped; the others are longer already.
        self._keep = max(len(forms[0]) * _ESCAPED_BYTES, *map(len, forms)) if forms else 0
        self._tail = b""

    def feed(self, data: bytes) -> bytes:
        """Returns the masked piece."""
        joined = self._tail + data
        if _holds(joined, self._forms):
            data = self._masked(joined, len(self._tail))
            joined = data
        self._tail = joined[-self._keep :] if self._keep else b""
        return data

    def _masked(self, joined: bytes, cut: int) -> bytes:
        """Returns the bytes after the cut. A secret across the cut is masked in its second part."""
        shown, begin = [], cut
        for found in _pattern(self._forms).finditer(joined):
            if found.end() > cut:
                shown += [joined[begin : max(begin, found.start())], _MASK_BYTES]
                begin = found.end()
        return b"".join([*shown, joined[begin:]])


_ESCAPED_BYTES = 7
"""A character takes this many bytes in JSON within JSON, and mostly fewer."""
