"""The public port: its sockets, and aiohttp's server with our connection class (`connections.py`).

A connection may idle, or take to send the headers of a request, for one bounded time: aiohttp's keep-alive timer
covers both, and bytes that trickle in do not extend it.
"""

import asyncio
import errno
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from gateway.server import sockets
from gateway.server.connections import BACKLOG, Connection, ConnectionTable

_LINGERING_S = 2.0
"""Seconds in which the rest of a refused request is read and discarded: closing on unread bytes resets the
connection, and the client may lose the refusal."""


class PortUnavailable(Exception):
    """The port cannot be bound; the text says why."""


class Listener:
    """Serves `app` inside its block; raises PortUnavailable at the start.

    At the end it accepts no more, and gives the requests in flight `drain_s` seconds to finish.
    """

    def __init__(
        self,
        app: web.Application,
        host: str,
        port: int,
        *,
        table: ConnectionTable,
        idle_timeout_s: float,
        drain_s: float,
    ) -> None:
        self._runner = web.AppRunner(app, shutdown_timeout=drain_s)
        self._host, self._port = host, port
        self._table = table
        self._options: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,
            "keepalive_timeout": idle_timeout_s,
            "lingering_time": _LINGERING_S,
        }
        self._servers: list[asyncio.Server] = []

    @property
    def port(self) -> int:
        """The port that is bound, also where `port` is 0 (any free one)."""
        assert self._servers, "the listener has not been entered"  # noqa: S101
        return int(self._servers[0].sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        await self._runner.setup()
        manager = self._runner.server
        assert manager is not None, "aiohttp makes it in setup"  # noqa: S101

        def connection() -> Connection:
            return Connection(manager, self._table, loop=loop, **self._options)

        try:
            for each in sockets.bound(self._host, self._port):
                self._servers.append(await loop.create_server(connection, sock=each, backlog=BACKLOG))
        except OSError as error:
            await self._runner.cleanup()
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error.strerror or error})"
            raise PortUnavailable(f"port {self._port} on {self._host} {reason}") from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for each in self._servers:
            each.close()
        await self._runner.cleanup()
