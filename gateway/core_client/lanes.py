"""A few connections (lanes) shared by many long calls, each carrying a bounded number of them.

HTTP/2 peers allow some 100 streams at once on one connection, and grpclib queues further calls until one is free.
Calls that wait a minute for the end of a generation would block all other calls, so they have connections of their
own, and no queue. When all streams are taken, the tenant that holds most gives one up for a tenant that holds less.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from infra.fairness import Permits

T = TypeVar("T")
R = TypeVar("R")


class Lanes(Generic[T]):
    """`lanes` with room for `per_lane` calls each."""

    def __init__(self, lanes: Sequence[T], *, per_lane: int) -> None:
        self._lanes = tuple(lanes)
        self._busy = [0] * len(self._lanes)
        self._permits = Permits(per_lane * len(self._lanes))

    async def call(self, owner: str, make: Callable[[T], Awaitable[R]]) -> R | None:
        """The result of a call on the least busy lane; None when all are full, or when the call was displaced."""
        try:
            async with asyncio.timeout(None) as needed:
                # When displaced: a time that has passed ends the block at once.
                permit = self._permits.acquire(owner, lambda: needed.reschedule(0))
                if permit is None:
                    return None
                try:
                    return await self._on_the_least_busy(make)
                finally:
                    permit.release()
        except TimeoutError:
            if needed.expired():
                return None
            raise

    async def _on_the_least_busy(self, make: Callable[[T], Awaitable[R]]) -> R:
        index = min(range(len(self._busy)), key=self._busy.__getitem__)
        self._busy[index] += 1
        try:
            return await make(self._lanes[index])
        finally:
            self._busy[index] -= 1
