"""Whether a picture's file holds pixels and nothing else: no text, no private chunks, no bytes after its end.

A model server may write the prompt into parts of the file that viewers do not show. So this is an allowlist: the
permitted parts with their lengths; every other part counts as metadata. Parses only the container; `encode` checks that
the file is a whole picture.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_BYTES: Final[Mapping[bytes, int]] = {
    b"IHDR": 13,
    b"IEND": 0,
    b"gAMA": 4,
    b"sRGB": 1,
    b"cHRM": 32,
    b"pHYs": 9,
    b"sBIT": 3,
    b"bKGD": 6,
    b"tIME": 7,
}
"""Chunks of an RGB picture that have a fixed length; besides them IDAT, of any length."""
_JPEG_LENGTHS: Final[Mapping[int, range]] = {
    0xE0: range(16, 17),  # JFIF without a thumbnail
    0xEE: range(14, 15),  # Adobe's marker of the colour transform
    0xDD: range(4, 5),
    **dict.fromkeys((0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB), range(2, 2048)),  # frame, tables, scan
}
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""The next marker after entropy-coded data, where 0xFF is followed by neither a stuffed zero nor a restart."""


def has_no_metadata(data: bytes, media_type: str) -> bool:
    """Whether the file holds nothing but pixels. `media_type` is one of contract.EncodedPicture; False for others."""
    check = _CHECKS.get(media_type)
    return check is not None and check(data)


def _png(data: bytes) -> bool:
    at = len(_PNG_SIGNATURE)
    kind = b""
    while kind != b"IEND" and at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind != b"IDAT" and _PNG_BYTES.get(kind) != length:
            return False
        at += 12 + length
    return kind == b"IEND" and at == len(data) and data.startswith(_PNG_SIGNATURE)


def _jpeg(data: bytes) -> bool:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if length not in _JPEG_LENGTHS.get(marker, ()):
            return False
        at += 2 + length
        if marker == 0xDA:
            found = _JPEG_MARKER.search(data, at)
            if found is None:
                return False
            at = found.start()
            if data[at:] == b"\xff\xd9":
                return data.startswith(b"\xff\xd8")
    return False


def _webp(data: bytes) -> bool:
    """A simple file, lossy or lossless: an extended one has an alpha channel, frames, a profile, or texts."""
    inside = int.from_bytes(data[16:20], "little")
    return (
        data[:4] == b"RIFF"
        and data[8:16] in (b"WEBPVP8 ", b"WEBPVP8L")
        and int.from_bytes(data[4:8], "little") + 8 == len(data) == 20 + inside + inside % 2
    )


_CHECKS: Final[Mapping[str, Callable[[bytes], bool]]] = {
    "image/png": _png,
    "image/jpeg": _jpeg,
    "image/webp": _webp,
}
