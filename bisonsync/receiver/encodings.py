"""What a sender may have done to a body on its way: nothing, or gzip."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

# One is usual; each costs a copy of what follows it, and a body could consist of a million empty ones.
_MOST_MEMBERS = 100
_GZIP = 16 + zlib.MAX_WBITS


class NotGzip(ValueError):
    """The body is not what its header says."""


class TooLarge(ValueError):
    """Unpacked it would be larger than allowed."""


def is_gzip(headers: Sequence[str]) -> bool | None:
    """Whether a body with these Content-Encoding headers is to be unpacked; None where that cannot be done here."""
    codings = [coding.strip().lower() for header in headers for coding in header.split(",")]
    applied = [coding for coding in codings if coding not in ("", "identity")]
    if not applied:
        return False
    return True if applied in (["gzip"], ["x-gzip"]) else None


def unpack(body: bytes, most: int) -> bytes:
    """Unpack gzip, never more than ``most`` bytes and one. Raises NotGzip, TooLarge."""
    parts: list[bytes] = []
    left, size = body, 0
    while left or not parts:
        if len(parts) == _MOST_MEMBERS:
            raise NotGzip(f"it has more than {_MOST_MEMBERS} parts")
        member = zlib.decompressobj(_GZIP)
        try:
            part = member.decompress(left, most + 1 - size)
        except zlib.error:
            raise NotGzip("it cannot be unpacked") from None
        parts.append(part)
        size += len(part)
        if size > most:
            raise TooLarge
        if not member.eof:
            raise NotGzip("its end is missing")
        left = member.unused_data
    return b"".join(parts)
