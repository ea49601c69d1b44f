"""Where a service that listens on an address is reached from this machine, and whether it can listen there at all."""

import errno
import socket

from infra.lifecycle import ConfigError

LOOPBACK = "127.0.0.1"
_EVERY_ADDRESS = {"": LOOPBACK, "0.0.0.0": LOOPBACK, "::": "::1"}


def reachable(host: str) -> str:
    """The address to connect to for a service bound to `host`, which may mean every address of the machine."""
    return _EVERY_ADDRESS.get(host.strip("[]"), host.strip("[]"))


def netloc(host: str, port: int) -> str:
    """`host:port` as written in URLs and targets, with an IPv6 address in brackets."""
    address = reachable(host)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def is_free(host: str, port: int, variable: str) -> bool:
    """Whether a service can listen there. Raises ConfigError that names `variable` for a host that is none of ours."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise ConfigError(f"{variable}: {host!r} is neither an address nor a name that resolves") from None
    unusable = 0
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # As asyncio's servers set it: a port whose last connections are in TIME_WAIT is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                return False
            unusable += 1
    if unusable == len(found):
        raise ConfigError(f"{variable}: {host} is no address of this machine")
    return True
