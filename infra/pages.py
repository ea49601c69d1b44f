"""Recognizes requests that a web page makes a browser send to a port of this machine. Ports without a secret refuse
them. Such a request carries Origin or Sec-Fetch-Site; after DNS rebinding to loopback it carries a foreign Host.
"""

from typing import Protocol

from infra.settings import is_loopback

_OWN_SITE = frozenset({"same-origin", "none"})


class Headers(Protocol):
    """A request's headers, looked up in any case, such as aiohttp's."""

    def getall(self, key: str, default: tuple[()], /) -> "list[str] | tuple[()]": ...


def complaint(headers: Headers, *, bound: str) -> str:
    """Why a request is refused as a web page's; empty if it is not one.

    `bound` is the address that the server listens on. If that is not loopback, any Host may be ours.
    """
    if headers.getall("Origin", ()):
        return "requests of web pages are not answered here"
    sites = {each.strip().lower() for each in headers.getall("Sec-Fetch-Site", ())}
    if not sites <= _OWN_SITE:
        return "requests of web pages are not answered here"
    hosts = headers.getall("Host", ())
    if is_loopback(bound) and not all(is_loopback(_name(each)) or _name(each) == bound for each in hosts):
        return "the Host header does not name this machine"
    return ""


def _name(authority: str) -> str:
    """The host of `host:port`, without brackets and final dot."""
    host = authority.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].removesuffix(".") if ":" in host else host.removesuffix(".")
