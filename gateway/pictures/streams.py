"""Bounds over all clients: how many pictures are sent at once, and how many bytes of them are in memory.

When the table of streams is full, a tenant with fewer streams displaces a stream of the tenant with most, if its
client has stopped reading; otherwise the new stream is refused. So slow readers of one tenant cannot keep another
tenant from its pictures.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.errors import Unavailable

PIECE_BYTES = 256 * 1024
"""The size of a range that is read from the store."""
PIECES_IN_MEMORY = 64
"""Over all streams: 16 MiB."""
CALLS_AT_ONCE = 8
"""Calls to the store. Each occupies the event loop for milliseconds, in which all other requests wait."""
STALLED_S = 5.0
"""Seconds without a byte taken, after which a client may be displaced by another tenant's."""


class Stream:
    """One client that is sent a picture. `cut` ends its connection."""

    __slots__ = ("cut", "tenant", "waiting_since")

    def __init__(self, tenant: str, cut: Callable[[], None]) -> None:
        self.tenant = tenant
        self.cut = cut
        self.waiting_since = float("inf")
        """Loop time since which the client has not read; infinity while it is the store's turn."""


class StreamTable:
    """The streams, `limit` at most. Times come from `now`, in seconds."""

    def __init__(self, limit: int, *, now: Callable[[], float]) -> None:
        self._limit = limit
        self._now = now
        self._present: set[Stream] = set()
        self._by_tenant: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._present)

    @contextmanager
    def entered(self, tenant: str, cut: Callable[[], None]) -> Iterator[Stream]:
        """The stream of one client, in the table until the block ends. Raises Unavailable if the table stays full."""
        if len(self._present) >= self._limit:
            self._make_room(tenant)
        stream = Stream(tenant, cut)
        self._present.add(stream)
        self._by_tenant[tenant] += 1
        try:
            yield stream
        finally:
            self._leave(stream)

    def _make_room(self, tenant: str) -> None:
        heaviest, most = self._by_tenant.most_common(1)[0]
        limit = self._now() - STALLED_S
        stalled = [each for each in self._present if each.tenant == heaviest and each.waiting_since <= limit]
        # Displacing at a difference of one would let two tenants displace each other in turn.
        if self._by_tenant[tenant] + 1 >= most or not stalled:
            raise Unavailable("Too many pictures are being sent at the moment.", retry_after_s=2)
        leaving = min(stalled, key=lambda each: each.waiting_since)
        self._leave(leaving)
        leaving.cut()

    def _leave(self, stream: Stream) -> None:
        if stream in self._present:
            self._present.discard(stream)
            self._by_tenant[stream.tenant] -= 1
            if not self._by_tenant[stream.tenant]:
                del self._by_tenant[stream.tenant]


class Lease:
    """The right to hold one piece in memory; returned once, however often `release` is called."""

    __slots__ = ("_places",)

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places: asyncio.Semaphore | None = places

    def release(self) -> None:
        """The piece is no longer in memory."""
        if self._places is not None:
            self._places.release()
            self._places = None


class PieceBudget:
    """Bounds the pieces in memory, and the calls for them at once. The table of streams bounds the waiters."""

    def __init__(self, most: int = PIECES_IN_MEMORY, *, calls: int = CALLS_AT_ONCE) -> None:
        self._places = asyncio.Semaphore(most)
        self.calling = asyncio.Semaphore(calls)
        """Held during a call to the store."""

    async def lease(self) -> Lease:
        """Waits for room, first come first served."""
        await self._places.acquire()
        return Lease(self._places)
