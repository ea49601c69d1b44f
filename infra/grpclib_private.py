"""The private parts of grpclib, and of h2 below it, that this project uses; no other module touches one.

Each entry says what it is for and why no public part will do. Tested with grpclib 0.4.9, which pyproject.toml pins,
and h2 4.4.1. `tests/unit/infra/test_grpclib_private.py` fails when one of these parts changes. Only `infra.rpc` calls
this module.
"""

from asyncio import Protocol
from collections.abc import Callable
from typing import Any, Final

from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.server import Server
from grpclib.server import Stream as ServerStream
from h2.exceptions import NoAvailableStreamIDError

TESTED_GRPCLIB: Final = "0.4.9"


class RenewedChannel(Channel):
    """Replaces a connection that has used up its stream ids: 2**30 calls, which is 18 days at 700 a second.

    grpclib keeps such a connection and fails each later call on it. It has no public hook before a call takes its
    stream, and its public events carry no connection, so `__connect__` is overridden. Calls that still wait for their
    answers on the old connection fail with StreamTerminatedError.
    """

    async def __connect__(self) -> Any:
        if self._protocol is not None:
            try:
                self._protocol.connection._connection.get_next_available_stream_id()  # noqa: SLF001
            except NoAvailableStreamIDError:
                self.close()
        return await super().__connect__()


def ping_settings(every_s: float) -> Configuration:
    """Settings of a server that pings idle peers and closes a connection without an answer within a third of that.

    The fields have underscores because grpclib calls them experimental. Without them a peer that vanished without
    closing its connection holds it until the process ends.
    """
    return Configuration(
        _keepalive_time=every_s,
        _keepalive_timeout=every_s / 3,
        _keepalive_permit_without_calls=True,
        _http2_max_pings_without_data=0,
        _http2_min_sent_ping_interval_without_data=every_s / 2,
    )


class WrappedServer(Server):
    """A server with `wrapped` between asyncio and grpclib on each connection.

    grpclib accepts every connection and has no public hook for one. Subclasses override `wrapped`.
    """

    def wrapped(self, make: Callable[[], Protocol]) -> Protocol:
        """The protocol of a new connection; `make` makes grpclib's own."""
        return make()

    def _protocol_factory(self) -> Any:
        return self.wrapped(super()._protocol_factory)


def check_sizes(stream: ServerStream[Any, Any], check: Callable[[int], None]) -> None:
    """Calls `check` with a number of bytes before `stream` waits for so many; what it raises ends the call.

    grpclib reads a message as `recv_data(5)`, then `recv_data(length)`, and flow control keeps the sender from pushing
    more than a window before that. Its public codec sees a message only once all of it is in memory, up to 4 GiB.
    """
    raw: Any = stream._stream  # noqa: SLF001
    receive = raw.recv_data

    async def recv_data(size: int) -> bytes:
        check(size)
        data: bytes = await receive(size)
        return data

    raw.recv_data = recv_data


def is_lost_connection(error: AttributeError) -> bool:
    """Whether a call failed because its connection was lost.

    grpclib deletes the transport of a lost connection, also below a call that is about to use it, so that such a call
    fails with an AttributeError and not with an error of grpclib.
    """
    return error.name == "_transport"
