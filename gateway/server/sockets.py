"""The sockets of the public port: one for each address of the host, all on the same port.

asyncio's own `create_server` binds `::` for IPv6 alone, and, for port 0, binds each address of `localhost` to a free
port of its own.
"""

import errno
import socket
from collections.abc import Sequence

_ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def bound(host: str, port: int) -> Sequence[socket.socket]:
    """Bound sockets for `host`, an address or a name; `::` and the empty string are every address of both families.

    An address that this machine lacks is skipped if another one can be bound. Raises OSError.
    """
    if host in ("::", ""):
        return _everywhere(port)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            wanted = sockets[0].getsockname()[1] if sockets else port  # for port 0: the one that the first got
            try:
                sockets.append(_bound(family, (address[0], wanted, *address[2:])))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                missing = error
    except OSError:
        for each in sockets:
            each.close()
        raise
    if not sockets:
        raise missing or OSError(errno.EADDRNOTAVAIL, "no such address")
    return sockets


def _everywhere(port: int) -> Sequence[socket.socket]:
    if not socket.has_dualstack_ipv6():
        return [_bound(socket.AF_INET, ("0.0.0.0", port))]
    return [_bound(socket.AF_INET6, ("::", port), both_families=True)]


def _bound(family: int, address: tuple[object, ...], *, both_families: bool = False) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both_families else 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
