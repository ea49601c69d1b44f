"""The connections of the public port: a bounded number, and a limit on how long an answer may stay unread.

A client that sends nothing, or half a request, or does not read, costs the gateway a file descriptor and memory. When
all connections are taken, a new one replaces the connection that has waited longest for its client, among owners with
more than their share; an owner is a tenant, or an address while the tenant is unknown. A connection is never closed
for a new one while its complete request waits for the gateway: if all are such, the new connection is closed.
`access.concurrency` keeps the number of requests in flight below the number of connections.
"""

import asyncio
import resource
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiohttp import web

from gateway import errors, problems
from gateway.access.rate_limits import source_of
from gateway.server.aiohttp_private import ObservedHandler
from infra.fairness import OwnerCounts

_log = structlog.get_logger()
_NEVER = float("inf")
BACKLOG = 512
"""Connections that asyncio accepts from the kernel at once, before any of them reaches the table."""
_OTHER_FILES = BACKLOG + 128
"""File descriptors kept free for those, and for all but clients: core, logs, keys, the admin port."""


def connection_limit(wanted: int) -> int:
    """`wanted`, or fewer if the process may not open so many files; raises the soft limit on files if that helps."""
    need = wanted + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - _OTHER_FILES))


class ConnectionTable:
    """The connections of one listener, `limit` at most.

    `on_cut` is called with the reason when one is cut: "full" (the table), "unread" (an answer), "broken" (a picture).
    """

    def __init__(self, limit: int, *, send_timeout_s: float, on_cut: Callable[[str], None]) -> None:
        self._limit = limit
        self.send_timeout_s = send_timeout_s
        self.on_cut = on_cut
        self._open: set[Connection] = set()
        self._owners = OwnerCounts()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, newcomer: "Connection") -> None:
        """Adds a connection; if there are too many then, closes one, which may be the newcomer."""
        self._open.add(newcomer)
        self._owners.change(newcomer.owner, +1)
        if len(self._open) > self._limit:
            # The newcomer waits for its client too, so a connection with a request in progress is never chosen.
            chosen = min(self._candidates(), key=lambda each: each.waiting_since)
            self.remove(chosen)  # now: the next newcomer may arrive before asyncio reports this one as closed
            chosen.cut("full")

    def remove(self, connection: "Connection") -> None:
        """The connection is closed. Does nothing if it was removed before."""
        if connection in self._open:
            self._open.discard(connection)
            self._owners.change(connection.owner, -1)

    def reassign(self, connection: "Connection", owner: str) -> None:
        """The connection turns out to belong to `owner`."""
        if connection in self._open:
            self._owners.change(connection.owner, -1)
            self._owners.change(owner, +1)
        connection.owner = owner

    def _candidates(self) -> "Collection[Connection]":
        """Those that wait for their clients, of owners with more than their share; all connections if there is none."""
        owners, total = self._owners.owners, len(self._open)
        heavy = {each for each in self._open if self._owners.of(each.owner) * owners > total}
        return [each for each in heavy if each.waiting_since != _NEVER] or self._open


class Connection(ObservedHandler):
    """aiohttp's connection with our limits, and with problems instead of aiohttp's own error pages."""

    __slots__ = ("_on_lost", "_since", "_table", "_unread", "_writable", "owner", "patience_s")

    def __init__(
        self, manager: web.Server, table: ConnectionTable, *, loop: asyncio.AbstractEventLoop, **options: Any
    ) -> None:
        super().__init__(manager, loop=loop, **options)
        self._table = table
        self._since = loop.time()
        self._unread: asyncio.TimerHandle | None = None
        self.owner = ""
        self._on_lost: Callable[[], None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.patience_s = table.send_timeout_s
        """Seconds in which the client must take at least a byte of what waits for it."""

    def serves(self, tenant: str) -> None:
        """A request on this connection has been authenticated as the tenant's."""
        owner = f"tenant {tenant}"
        if owner != self.owner:
            self._table.reassign(self, owner)

    @property
    def waiting_since(self) -> float:
        """While the client has to send or to read: loop time of its last answer or its connection; else infinity."""
        return self._since if self.awaits_client else _NEVER

    def cut(self, reason: str) -> None:
        """Closes at once, and drops what is unsent."""
        if self.transport is not None:
            self._table.on_cut(reason)
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.owner = f"source {source_of(str(peer[0]))}" if peer else "source"
        self._table.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._table.remove(self)
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)
        self._writable.set()
        if self._on_lost is not None:
            self._on_lost()

    def pause_writing(self) -> None:
        """Asyncio calls this when the client reads more slowly than we write. aiohttp would wait without a limit."""
        super().pause_writing()
        self._writable.clear()
        self._watch_client()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._writable.set()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _watch_client(self) -> None:
        if self.transport is not None:
            unsent = self.transport.get_write_buffer_size()
            self._unread = asyncio.get_running_loop().call_later(self.patience_s, self._judge_client, unsent)

    def _judge_client(self, unsent_before: int) -> None:
        """Closes the connection unless its client has taken at least a byte since the last look."""
        if self.transport is not None and self.transport.get_write_buffer_size() < unsent_before:
            self._watch_client()
        else:
            self.cut("unread")

    async def drained(self, timeout_s: float | None = None) -> bool:
        """Waits until the client has taken enough for more to be written; False: not within `timeout_s`.

        Uses an event of its own: aiohttp's waits share one future, which a cancelled wait would cancel for the next.
        Raises ConnectionError.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._writable.wait()
        except TimeoutError:
            return False
        if self.transport is None:
            raise ConnectionResetError
        return True

    @asynccontextmanager
    async def while_connected(self) -> AsyncIterator[None]:
        """Cancels the block when the client hangs up, and then raises ConnectionError."""
        if self.transport is None:
            raise ConnectionResetError
        scope = asyncio.timeout(None)
        self._on_lost = lambda: scope.reschedule(asyncio.get_running_loop().time())
        try:
            async with scope:
                yield
        except TimeoutError:
            if scope.expired():
                raise ConnectionResetError from None
            raise
        finally:
            self._on_lost = None

    async def finish_response(self, *args: Any, **kw: Any) -> tuple[web.StreamResponse, bool]:
        """Aiohttp calls this to send one answer. After it, the connection waits for its client."""
        try:
            return await super().finish_response(*args, **kw)
        finally:
            self._since = asyncio.get_running_loop().time()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """Aiohttp calls this for an error of its parser; `routes.middleware` handles every other error.

        The parser's text may hold a key or a prompt, so it is neither answered nor logged.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer has been sent")
        broken = status >= 500
        error = errors.Broken() if broken else errors.BadSyntax("The request is no HTTP/1.1 that can be read.")
        response = problems.response(error)
        response.headers.update(problems.ON_EVERY_ANSWER)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ARG002
        """Logs the type of the error alone: its text may hold content."""
        _log.warning("connection.failed", error=type(kw.get("exc_info")).__name__)
