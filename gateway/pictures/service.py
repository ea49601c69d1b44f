"""Sends one picture to one client, or makes a link to it; the route has checked state, conditions and range before.

Three things are bounded: the streams at once and the pieces in memory over all streams (`streams.py`), and the time in
which a client takes no byte (`patience_s`).
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from aiohttp import web
from aiohttp.http import StreamWriter

from gateway.errors import Broken
from gateway.metrics import Metrics
from gateway.pictures.ranges import Part
from gateway.pictures.sending import SLICE_BYTES, LoadedPiece, Picture, Source, pour
from gateway.pictures.signing import Signer
from gateway.pictures.streams import PIECE_BYTES, PieceBudget, Stream, StreamTable
from gateway.ports import PictureStore
from gateway.server.connections import Connection
from infra.retry import Permanent

_log = structlog.get_logger()
_UNSENT_IN_KERNEL = 64 * 1024
"""Bytes that the kernel buffers unsent for a client; without this its buffer grows to megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureService:
    """Sends pictures. `redirect_s`: seconds that a link to the store is valid; 0: pictures are streamed.

    `patience_s`: seconds in which a client must take at least a byte. `now` gives loop time.
    """

    store: PictureStore
    signer: Signer
    streams: StreamTable
    pieces: PieceBudget
    metrics: Metrics
    rng: Callable[[], float]
    now: Callable[[], float]
    redirect_s: int
    patience_s: float

    async def link(self, key: str) -> str:
        """A link to the picture at the store, valid for `redirect_s`. Raises infra.retry.Retryable, or Broken."""
        try:
            return await self.store.link(key, expires_s=self.redirect_s)
        except Permanent as error:
            raise Broken("no link could be made") from error

    async def send(
        self, request: web.Request, response: web.StreamResponse, picture: Picture, part: Part, *, tenant: str
    ) -> web.StreamResponse:
        """Sends `part` with the headers of `response`.

        Raises Missing, Unavailable or StoreRefused before the first byte; later the connection is cut.
        """
        connection = request.protocol
        assert isinstance(connection, Connection)  # noqa: S101  (the listener makes no others)
        source = Source(self.store, self.pieces, picture, part, rng=self.rng)
        with self.streams.entered(tenant, lambda: connection.cut("unread")) as stream:
            try:
                async with connection.while_connected():
                    first = await source.piece(PIECE_BYTES)
                    try:
                        await self._pour(request, response, source, first, stream)
                    finally:
                        first.drop()
            except ConnectionError:
                self.metrics.picture("hung_up")
                return response
            except Exception as error:
                if not response.prepared:
                    raise
                _log.warning("picture.cut", error=type(error).__name__, operation="getImage")
                self.metrics.picture("cut")
                connection.cut("broken")
                return response
        self.metrics.picture("sent")
        return response

    async def _pour(
        self, request: web.Request, response: web.StreamResponse, source: Source, first: LoadedPiece, stream: Stream
    ) -> None:
        connection = request.protocol
        assert isinstance(connection, Connection)  # noqa: S101
        usual_s, connection.patience_s = connection.patience_s, self.patience_s
        _bound_buffers(request)
        try:
            writer = await response.prepare(request)
            assert isinstance(writer, StreamWriter)  # noqa: S101  (None only for an answer that is complete)
            await pour(_Client(writer, connection), source, first, stream, self.now)
            await response.write_eof()
        finally:
            connection.patience_s = usual_s


class _Client:
    """Fits gateway.pictures.sending.Client."""

    def __init__(self, writer: StreamWriter, connection: Connection) -> None:
        self._writer = writer
        self.drained = connection.drained

    async def write(self, data: bytes | memoryview) -> None:
        await self._writer.write(data, drain=False)


def _bound_buffers(request: web.Request) -> None:
    """Limits what is buffered for this client in the process and in the kernel. Raises ConnectionResetError."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError
    transport.set_write_buffer_limits(high=SLICE_BYTES)
    plain = transport.get_extra_info("socket")
    lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if plain is not None and lowat is not None:
        plain.setsockopt(socket.IPPROTO_TCP, lowat, _UNSENT_IN_KERNEL)
