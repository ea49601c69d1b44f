"""The guard of a gateway without API keys, which answers only programs on this machine and its own pages.

Without keys only the address it listens on protects the gateway, and any web page can make a browser on this machine
send requests to it. Origin or Sec-Fetch-Site show that a request comes from a foreign page; Host shows a page whose
name was rebound to loopback (DNS rebinding). X-Forwarded-Host and the like are never read.
"""

import ipaddress
from urllib.parse import urlsplit

from aiohttp import web

from gateway.edge import framing
from gateway.errors import ForeignHost, ForeignOrigin

_OWN_SITE = frozenset({"same-origin", "none"})


class KeylessGuard:
    """Checks requests. `public_url` and `bound_host` are accepted as names of this gateway, besides loopback's."""

    def __init__(self, *, public_url: str, bound_host: str) -> None:
        public = urlsplit(public_url)
        self._public = public.netloc.lower()
        self._public_origin = f"{public.scheme}://{public.netloc}".lower() if public_url else ""
        self._bound = bound_host.strip("[]").lower()

    def check(self, request: web.BaseRequest, *, document: bool) -> None:
        """Raises ForeignHost or ForeignOrigin. A `document` may be opened by a link from anywhere."""
        authority = framing.authority(request)
        if not authority or not self._is_ours(authority):
            raise ForeignHost
        origins = request.headers.getall("Origin", ())
        if len(origins) > 1 or (origins and not self._is_own_origin(origins[0], authority)):
            raise ForeignOrigin
        sites = {each.strip().lower() for each in request.headers.getall("Sec-Fetch-Site", ())}
        if sites <= _OWN_SITE or (document and not origins and _opens_a_page(request)):
            return
        raise ForeignOrigin

    def _is_ours(self, authority: str) -> bool:
        host, _ = framing.split_authority(authority)
        return authority == self._public or host == self._bound or is_this_machine(host)

    def _is_own_origin(self, origin: str, authority: str) -> bool:
        """Whether it is the public URL's origin, or has the request's host and port; a final dot makes no difference.

        Only http counts for the latter, since the gateway has no TLS.
        """
        claimed = origin.strip().lower()
        if self._public_origin and claimed == self._public_origin:
            return True
        scheme, _, named = claimed.partition("://")
        return scheme == "http" and _comparable(named) == _comparable(authority) is not None


def is_this_machine(host: str) -> bool:
    """Whether `host`, without a port, can only mean this machine."""
    name = host.strip("[]").removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761: browsers resolve both to loopback themselves
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _comparable(authority: str) -> tuple[str, str] | None:
    host, port = framing.split_authority(authority)
    return (host.removesuffix("."), port or "80") if host else None


def _opens_a_page(request: web.BaseRequest) -> bool:
    headers = request.headers
    navigates = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return navigates and request.method in ("GET", "HEAD")
