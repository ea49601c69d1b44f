"""Checks that a request has exactly one body length and one Host, before anything else in it is used.

aiohttp's parser accepts requests that a proxy in front of it may delimit differently (request smuggling). They are
refused here, and the connection is closed, so that the bytes that follow are not parsed as another request.
"""

import re
from functools import lru_cache

from aiohttp import HttpVersion11, web

from gateway.errors import BadSyntax

_AUTHORITY = re.compile(r"(?P<host>[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")


class BadFraming(BadSyntax):
    """The request's length or its host is ambiguous or malformed."""


def check(request: web.BaseRequest) -> None:
    """Raises BadFraming for a request whose length or host is ambiguous or malformed."""
    headers = request.headers
    if "Transfer-Encoding" in headers:
        codings = headers.getall("Transfer-Encoding")
        if request.version < HttpVersion11:
            raise BadFraming("HTTP/1.0 does not define Transfer-Encoding.")
        if "Content-Length" in headers:
            raise BadFraming("A request has either Content-Length or Transfer-Encoding.")
        if len(codings) != 1 or codings[0].strip().lower() != "chunked":
            raise BadFraming("The only accepted Transfer-Encoding is chunked.")
    elif "Content-Length" in headers:
        lengths = headers.getall("Content-Length")
        if len(lengths) != 1 or not (lengths[0].isascii() and lengths[0].isdecimal()):
            raise BadFraming("Content-Length must be one number.")
    authority(request)


def authority(request: web.BaseRequest) -> str:
    """`host` or `host:port` that the request is for, in lower case; empty for HTTP/1.0 without one.

    A target in absolute form overrides Host (RFC 9112, 3.2.2). Raises BadFraming.
    """
    named = request.headers.getall("Host", ())
    if len(named) > 1 or (not named and request.version >= HttpVersion11):
        raise BadFraming("A request names exactly one Host.")
    host = _normal(named[0]) if named else ""
    target = request.raw_path
    if target.startswith("/") or target == "*":
        return host
    _, separator, rest = target.partition("://")
    return _normal(re.split(r"[/?#]", rest, maxsplit=1)[0]) if separator else host


def split_authority(authority: str) -> tuple[str, str]:
    """Host, without brackets, and port of an authority; empty strings where there is none or it is malformed."""
    found = _AUTHORITY.fullmatch(authority)
    return ("", "") if found is None else (found["host"].strip("[]"), found["port"] or "")


@lru_cache(maxsize=1024)
def _normal(text: str) -> str:
    found = _AUTHORITY.fullmatch(text.strip(" \t"))
    if found is None or int(found["port"] or 0) > 65535:
        raise BadFraming("Host is not the name or address of a server.")
    return text.strip(" \t").lower()
