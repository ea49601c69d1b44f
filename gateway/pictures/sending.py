"""Sends a picture from the store to a client in pieces, each read when the client has taken the one before.

No connection to the store is held while a client reads. Bytes that a client has not taken within a tenth of a second
are dropped from memory, and read again in smaller pieces once the client reads. A failure before the first byte is
answered with a status; a later one closes the connection, so that a truncated picture never looks whole. A whole
picture is hashed while it is sent, and its last bytes are held back if it is not the published one.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import structlog

from gateway.errors import StoreRefused, Unavailable
from gateway.pictures.ranges import Part
from gateway.pictures.streams import PIECE_BYTES, Lease, PieceBudget, Stream
from gateway.ports import PictureStore, Piece
from infra.retry import Permanent, Retryable, retry

_log = structlog.get_logger()
SLICE_BYTES = 32 * 1024
"""Bytes handed to a connection at once; it buffers as many again at most."""
_SLOW_AFTER_S = 0.1
_PIECE_S = 10.0
_ATTEMPTS = 3


class Missing(Exception):
    """The store has no such picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What core knows of a published picture."""

    key: str
    sha256: bytes


class Client(Protocol):
    """The receiver of the bytes. Calls raise ConnectionError."""

    async def write(self, data: bytes | memoryview) -> None:
        """Buffers the bytes; does not wait for the client."""

    async def drained(self, timeout_s: float | None = None) -> bool:
        """Waits until more may be written; False: not within `timeout_s`."""


class Source:
    """The part of a picture that one answer sends, piece by piece."""

    def __init__(
        self, store: PictureStore, pieces: PieceBudget, picture: Picture, part: Part, *, rng: Callable[[], float]
    ) -> None:
        self._store = store
        self._pieces = pieces
        self._picture = picture
        self._part = part
        self._rng = rng
        self._tag = ""
        self._digest = sha256() if part.whole else None
        self.position = part.first
        """The next byte that the client needs."""

    @property
    def done(self) -> bool:
        return self.position > self._part.last

    async def piece(self, size: int) -> "LoadedPiece":
        """The next bytes, `size` at most. Raises Missing, Unavailable or StoreRefused."""
        try:
            async with asyncio.timeout(_PIECE_S):
                lease = await self._pieces.lease()
                try:
                    return LoadedPiece(await self._read(min(self.position + size - 1, self._part.last)), lease)
                except BaseException:
                    lease.release()
                    raise
        except TimeoutError:
            raise Unavailable("The picture store does not answer in time.") from None

    async def _read(self, last: int) -> bytes:
        async def attempt() -> Piece | None:
            async with self._pieces.calling:
                return await self._store.read(self._picture.key, first=self.position, last=last, tag=self._tag)

        try:
            piece = await retry(attempt, attempts=_ATTEMPTS, first_s=0.1, cap_s=1.0, rng=self._rng)
        except Retryable as error:
            _log.warning("picture.unread", reason=str(error))
            raise Unavailable("The picture store does not answer.") from None
        except Permanent as error:
            _log.error("picture.refused", reason=str(error))
            raise StoreRefused from error
        if piece is None:
            raise Missing
        foreign = piece.sha256 not in (None, self._picture.sha256)
        if foreign or piece.total_bytes != self._part.size or len(piece.data) != last - self.position + 1:
            _log.error("picture.refused", reason="the store holds another picture than was published")
            raise StoreRefused
        if self._part.whole and len(piece.data) == self._part.size:
            self._judge(sha256(piece.data).digest())  # all in one piece: a wrong picture still gets a status
        self._tag = piece.tag
        return piece.data

    def passed_on(self, data: bytes | memoryview) -> None:
        """Records bytes that are about to be sent. Raises StoreRefused before the last bytes of a wrong picture."""
        self.position += len(data)
        if self._digest is None:
            return
        self._digest.update(data)
        if self.done:
            self._judge(self._digest.digest())

    def _judge(self, digest: bytes) -> None:
        if digest != self._picture.sha256:
            _log.error("picture.refused", reason="the picture's SHA-256 is not the published one")
            raise StoreRefused


class LoadedPiece:
    """A piece in memory, with its lease from the budget."""

    __slots__ = ("_lease", "data")

    def __init__(self, data: bytes, lease: Lease) -> None:
        self.data = data
        self._lease = lease

    def drop(self) -> None:
        """Frees the memory and the lease; repeating it is harmless."""
        self.data = b""
        self._lease.release()


async def pour(client: Client, source: Source, first: LoadedPiece, stream: Stream, now: Callable[[], float]) -> None:
    """Sends everything, beginning with `first`. Raises what `Source` raises, and ConnectionError."""
    held, size = first, PIECE_BYTES
    while True:
        try:
            slow = await _slices(client, source, held)
        finally:
            held.drop()  # before the wait: a slow client holds no piece in memory
        stream.waiting_since = now()
        await client.drained()
        stream.waiting_since = float("inf")
        if source.done:
            return
        size = SLICE_BYTES if slow else min(2 * size, PIECE_BYTES)
        held = await source.piece(size)


async def _slices(client: Client, source: Source, held: LoadedPiece) -> bool:
    """Sends the piece slice by slice, as the client reads. True: it is too slow, and the rest is dropped."""
    data = memoryview(held.data)
    for start in range(0, len(data), SLICE_BYTES):
        part = data[start : start + SLICE_BYTES]
        source.passed_on(part)
        await client.write(part)
        if not await client.drained(_SLOW_AFTER_S):
            return True
    return False
