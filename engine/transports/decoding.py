"""Content encodings of a reply (RFC 9110, section 8.4.1): gzip (RFC 1952) and deflate (RFC 1950, or bare RFC 1951).

Decoded a piece at a time, so that a body which swells a thousandfold never is in memory. No other encoding is
offered to servers, and none is taken.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from engine.core.errors import Malformed, Truncated

OFFERED = "gzip, deflate"
"""The value of the header `accept-encoding`."""
_PIECE_BYTES = 256 * 1024
_GZIP, _ZLIB, _BARE = 31, 15, -15
"""`wbits` of zlib: with a gzip header, with a zlib header, with none."""
_MAGIC = b"\x1f\x8b"


class BodyDecoder:
    """Decodes one body."""

    __slots__ = ("_ended", "_gzip", "_inflate", "_open", "_start", "_status", "_where")

    def __init__(self, encoding: str, where: str, status: int) -> None:
        """`where` and `status` go into its errors. Raises Malformed for an encoding that was not offered."""
        name = encoding.strip().lower()
        if name not in ("gzip", "x-gzip", "deflate"):
            shown = ascii(encoding if len(encoding) < 60 else encoding[:60] + "…")
            raise Malformed(
                f"{where}: the body has the content encoding {shown}; expected one of {OFFERED}",
                status=status,
            )
        self._gzip = name != "deflate"
        self._where = where
        self._status = status
        self._inflate = zlib.decompressobj(_GZIP) if self._gzip else None
        self._start = b""
        """The first byte of a deflated body, while its second is not here to tell the two forms apart."""
        self._open = False
        """Bytes of an encoded stream have come, and its end has not."""
        self._ended = False
        """A stream has come to its end."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields what can be decoded now, in pieces of at most 256 KiB. Raises Malformed."""
        inflate = self._inflate
        if inflate is None:
            data = self._start + data
            if len(data) < 2:
                self._start, self._open = data, bool(data)
                return
            has_header = data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            inflate = self._inflate = zlib.decompressobj(_ZLIB if has_header else _BARE)
        while data or self._open:
            if not self._open:
                if self._ended and not (self._gzip and _MAGIC.startswith(data[:2])):
                    return  # members of gzip may follow one another; anything else after the end is padding
                self._open = True
            try:
                piece = inflate.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise Malformed(
                    f"{self._where}: the body does not have the content encoding it claims", status=self._status
                ) from error
            if piece:
                yield piece
            if inflate.eof:
                data = inflate.unused_data
                self._open, self._ended = False, True
                inflate = self._inflate = zlib.decompressobj(_GZIP)
            else:
                data = inflate.unconsumed_tail
                if not data and len(piece) < _PIECE_BYTES:
                    return

    def finish(self) -> None:
        """Called at the end of the body. Raises Truncated where the encoding has not come to its end."""
        if self._open:
            raise Truncated(f"{self._where}: the compressed body ends too early", status=self._status)


def decoder_for(encoding: str | None, where: str, status: int) -> BodyDecoder | None:
    """The decoder of a body with this `content-encoding`; None: it has none. Raises Malformed."""
    if encoding is None or encoding.strip().lower() in ("", "identity"):
        return None
    return BodyDecoder(encoding, where, status)


async def decoded(
    body: AsyncGenerator[bytes, None], decoder: BodyDecoder, limit_bytes: int, too_large: Malformed
) -> AsyncGenerator[bytes, None]:
    """A body without its encoding. Raises what the decoder does, and `too_large` past the limit."""
    total = 0
    async with aclosing(body):
        async for data in body:
            for piece in decoder.feed(data):
                total += len(piece)
                if total > limit_bytes:
                    raise too_large
                yield piece
        decoder.finish()
