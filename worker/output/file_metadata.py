"""Whether a picture's file holds its picture and nothing else: no texts, no private parts, nothing behind its end.

A model server may write the prompt anywhere a reader does not look. So what may pass is listed, part by part with its
length, and whatever is not known is not plain. Looks at the container alone; that it is a whole picture is for others
to see.
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
"""Chunks of an RGB picture that are of one length always; beside them IDAT, of any."""
_JPEG_LENGTHS: Final[Mapping[int, range]] = {
    0xE0: range(16, 17),  # JFIF without a thumbnail
    0xEE: range(14, 15),  # Adobe's, of the colour transform
    0xDD: range(4, 5),
    **dict.fromkeys((0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB), range(2, 2048)),  # frame, tables, scan
}
_JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""Ends entropy-coded data: no stuffed byte, no restart."""


def is_plain(data: bytes, media_type: str) -> bool:
    """Of image/png, image/jpeg and image/webp, as contract.EncodedPicture has them."""
    look = _LOOKS.get(media_type)
    return look is not None and look(data)


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
    """A lossy or a lossless picture alone: an extended file has an alpha channel, frames, a profile, or texts."""
    inside = int.from_bytes(data[16:20], "little")
    return (
        data[:4] == b"RIFF"
        and data[8:16] in (b"WEBPVP8 ", b"WEBPVP8L")
        and int.from_bytes(data[4:8], "little") + 8 == len(data) == 20 + inside + inside % 2
    )


_LOOKS: Final[Mapping[str, Callable[[bytes], bool]]] = {
    "image/png": _png,
    "image/jpeg": _jpeg,
    "image/webp": _webp,
}
