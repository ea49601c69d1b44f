"""Which bytes of a picture a request gets: RFC 9110's conditions and byte ranges. Pure.

A picture never changes, so its SHA-256 is a strong validator and there is no Last-Modified: a date in `If-Range`
matches nothing, and the whole picture is sent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.errors import ConditionFailed, RangeUnsatisfiable

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)
_TAGS = re.compile(r"(W/)?(\"[\x21\x23-\x7e\x80-\xff]*\")")
_FAR = 1 << 62
_DIGITS = 18  # a longer number is beyond any picture, and is not worth converting


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The bytes `first` to `last`, both included, of a picture of `size` bytes. `whole`: the answer is 200, not 206."""

    first: int
    last: int
    size: int
    whole: bool

    @property
    def length(self) -> int:
        return self.last - self.first + 1


def unchanged(headers: Mapping[str, str], tag: str) -> bool:
    """Whether the client has the picture already (304). Raises ConditionFailed for an If-Match that names another."""
    wanted = headers.get("If-Match")
    if wanted is not None and wanted.strip() != "*" and tag not in _strong(wanted):
        raise ConditionFailed
    held = headers.get("If-None-Match")
    return held is not None and (held.strip() == "*" or tag in {each[1] for each in _TAGS.findall(held)})


def wanted(headers: Mapping[str, str], tag: str, size: int, *, method: str = "GET") -> Part:
    """The part to send: one range, or all of it. Raises RangeUnsatisfiable.

    Anything but one byte range is ignored, as RFC 9110 allows: an unknown unit, several ranges, a syntax error.
    """
    whole = Part(first=0, last=size - 1, size=size, whole=True)
    asked = headers.get("Range")
    if asked is None or method != "GET" or not _applies(headers.get("If-Range"), tag):
        return whole
    found = _RANGE.fullmatch(asked.strip())
    if found is None or found[1] == found[2] == "":
        return whole
    if not found[1]:
        first, last = max(0, size - _number(found[2])), size - 1
        if _number(found[2]) == 0:
            raise RangeUnsatisfiable(size)
    else:
        first, last = _number(found[1]), min(_number(found[2]) if found[2] else _FAR, size - 1)
        if found[2] and _number(found[2]) < _number(found[1]):
            return whole
    if first >= size:
        raise RangeUnsatisfiable(size)
    return Part(first=first, last=last, size=size, whole=False)


def _applies(if_range: str | None, tag: str) -> bool:
    return if_range is None or if_range.strip() == tag


def _strong(field: str) -> set[str]:
    return {text for weak, text in _TAGS.findall(field) if not weak}


def _number(digits: str) -> int:
    return int(digits) if len(digits.lstrip("0")) <= _DIGITS else _FAR
