"""What core's gRPC server and its two clients share: tokens, trace context, spans, a size cap, and errors.

grpclib itself buffers messages of up to 4 GiB and knows no authentication, so `guard` refuses a call by its token
before its message is read, and by its announced size before its message is buffered.
"""

import hmac
import socket
from asyncio import BaseTransport, Protocol, Transport, current_task, get_running_loop, timeout
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, cast

from grpclib import GRPCError, Status
from grpclib.client import Channel
from grpclib.events import RecvRequest, SendRequest, listen
from grpclib.exceptions import ProtocolError, StreamTerminatedError
from grpclib.server import Server
from grpclib.server import Stream as ServerStream
from h2.exceptions import H2Error
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from infra import grpclib_private
from infra.lifecycle import ConfigError
from infra.retry import Permanent, Retryable
from infra.settings import is_loopback

_tracer = trace.get_tracer(__name__)
_OPEN: Final = "/grpc.health."  # health checks need no token
_PERMANENT: Final = frozenset(
    {
        *(Status.INVALID_ARGUMENT, Status.NOT_FOUND, Status.ALREADY_EXISTS, Status.PERMISSION_DENIED),
        *(Status.FAILED_PRECONDITION, Status.OUT_OF_RANGE, Status.UNIMPLEMENTED, Status.UNAUTHENTICATED),
    }
)
_Handler = Callable[[ServerStream[Any, Any]], Awaitable[None]]


def require_token(host: str, token: str) -> None:
    """Raises ConfigError for a server that others could reach without a token."""
    if not token and not is_loopback(host):
        raise ConfigError(f"core's API would be open on {host}: set DARKROOM_INTERNAL_TOKEN, or listen on 127.0.0.1")


def open_channel(target: str, *, token: str) -> Channel:
    """A channel to `host:port` or `unix:PATH` that connects at the first call, and again whenever it is cut.

    Needs a running event loop. Each call carries the token and the current trace context. Raises ConfigError for a
    malformed `target`.
    """
    if target.startswith("unix:"):
        channel = grpclib_private.RenewedChannel(path=target.removeprefix("unix:"))
    else:
        host, _, port = target.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"DARKROOM_CORE_TARGET: {target!r} is neither host:port nor unix:PATH")
        channel = grpclib_private.RenewedChannel(host.strip("[]"), int(port))
    attach(channel, token=token)
    return channel


def attach(channel: Channel, *, token: str) -> None:
    """Makes every call of `channel` carry the token and the current trace context."""

    async def on_send(event: SendRequest) -> None:
        if token:
            event.metadata["authorization"] = f"Bearer {token}"
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        for name, value in carrier.items():
            event.metadata[name] = value

    listen(channel, SendRequest, on_send)


@contextmanager
def contain_errors() -> Iterator[None]:
    """Wraps a grpclib call in a task that continues after an error.

    grpclib wakes a call on a lost connection by cancelling its task, and never uncancels it. Under Python 3.11.2 every
    later asyncio.timeout in that task would then end the task as cancelled, without a message. grpclib also lets errors
    of h2 through, and its own AttributeError for a lost connection: here both become StreamTerminatedError.
    """
    task = current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    except Exception as error:
        while task and task.cancelling() > before:  # twice where the connection is closed first, then lost
            task.uncancel()
        if isinstance(error, H2Error):
            raise StreamTerminatedError(type(error).__name__) from error
        if isinstance(error, AttributeError) and grpclib_private.is_lost_connection(error):
            raise ConnectionLost from error
        raise


class ConnectionLost(StreamTerminatedError):
    """The connection was lost during a call. It is a class of its own because logs show the class name."""


@asynccontextmanager
async def calling(method: str, *, deadline_s: float) -> AsyncIterator[Span]:
    """Wraps one unary call of a client in a span and a deadline; its errors become Retryable or Permanent.

    `method` is "package.Service/Method". The original error is the `__cause__`: for Permanent always a GRPCError, with
    a status such as NOT_FOUND.
    """
    attributes = {"rpc.system.name": "grpc", "rpc.method": method}
    with _tracer.start_as_current_span(
        method, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        status = Status.OK
        try:
            with contain_errors():
                async with timeout(deadline_s):
                    yield span
        except GRPCError as error:
            status = error.status
            kind = Permanent if status in _PERMANENT else Retryable
            raise kind(f"{method}: {status.name}") from error
        except TimeoutError as error:
            status = Status.DEADLINE_EXCEEDED
            raise Retryable(f"{method}: {status.name}") from error
        except (OSError, ProtocolError, StreamTerminatedError) as error:
            status = Status.UNAVAILABLE
            raise Retryable(f"{method}: {type(error).__name__}") from error
        finally:
            _finish(span, status)


class BoundedServer(grpclib_private.WrappedServer):
    """Serves at most `connections` at a time and closes any more at once; closes a connection that answers no ping.

    grpclib itself accepts as many connections as the process may open files, and keeps those that send nothing.
    """

    def __init__(self, handlers: Collection[Any], *, connections: int, ping_s: float = 60.0) -> None:
        super().__init__(handlers, config=grpclib_private.ping_settings(ping_s))
        self._limit = connections
        self._open: set[_BoundedConnection] = set()

    def wrapped(self, make: Callable[[], Protocol]) -> Protocol:
        """See WrappedServer."""
        return _BoundedConnection(self._open, self._limit, make)

    async def listen(self, host: str, port: int) -> int:
        """Starts to serve, and returns the port: with `port` 0, a free one on the first address that `host` names.

        Raises OSError.
        """
        if port:
            await self.start(host, port)
            return port
        # grpclib has no public name for the sockets that it makes itself.
        found = await get_running_loop().getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listening = socket.create_server(address[:2], family=family)
        await self.start(sock=listening)
        return int(listening.getsockname()[1])


class _BoundedConnection(Protocol):
    """grpclib's connection if there is room; else one that closes at once and is never passed on to grpclib."""

    def __init__(self, others: "set[_BoundedConnection]", limit: int, make: Callable[[], Protocol]) -> None:
        self._others = others
        self._limit = limit
        self._make = make
        self._inner = Protocol()  # which does nothing

    def connection_made(self, transport: BaseTransport) -> None:
        if len(self._others) >= self._limit:
            cast("Transport", transport).abort()
            return
        self._others.add(self)
        self._inner = self._make()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._others.discard(self)
        self._inner.connection_lost(exc)


def guard(server: Server, *, token: str, max_bytes: int) -> None:
    """Makes `server` check the token, cap messages at `max_bytes`, and serve each call in its caller's trace."""

    async def on_request(event: RecvRequest) -> None:
        if event.method_name.startswith(_OPEN):
            event.method_func = _capped(cast("_Handler", event.method_func), max_bytes)
            return
        if token and not _same(event.metadata.get("authorization"), f"Bearer {token}"):
            raise GRPCError(Status.UNAUTHENTICATED, "wrong or missing token")
        carrier = {name: value for name, value in event.metadata.items() if isinstance(value, str)}
        event.method_func = _served(
            cast("_Handler", event.method_func), event.method_name.lstrip("/"), carrier, max_bytes
        )

    listen(server, RecvRequest, on_request)


def _same(given: object, expected: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(given.encode(), expected.encode())


def _capped(handler: _Handler, max_bytes: int) -> Any:
    async def serve(stream: ServerStream[Any, Any]) -> None:
        _cap(stream, max_bytes)
        await handler(stream)

    return serve


def _served(handler: _Handler, method: str, carrier: dict[str, str], max_bytes: int) -> Any:
    async def serve(stream: ServerStream[Any, Any]) -> None:
        _cap(stream, max_bytes)
        attributes = {"rpc.system.name": "grpc", "rpc.method": method}
        with _tracer.start_as_current_span(
            method,
            context=propagate.extract(carrier),
            kind=SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            status = Status.UNKNOWN
            try:
                await handler(stream)
                status = Status.OK
            except GRPCError as error:
                status = error.status
                raise
            finally:
                _finish(span, status)

    return serve


def _cap(stream: ServerStream[Any, Any], max_bytes: int) -> None:
    """Refuses a message longer than `max_bytes` when its length is known and its bytes have not been read."""

    def check(size: int) -> None:
        if size > max_bytes:
            raise GRPCError(Status.INVALID_ARGUMENT, f"a message may have at most {max_bytes} bytes")

    grpclib_private.check_sizes(stream, check)


def _finish(span: Span, status: Status) -> None:
    span.set_attribute("rpc.response.status_code", status.name)
    if status is not Status.OK:
        span.set_attribute("error.type", status.name)
        span.set_status(StatusCode.ERROR)
