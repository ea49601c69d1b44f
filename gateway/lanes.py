"""A few connections shared by many long calls, each connection carrying a bounded number.

HTTP/2 peers allow some 100 streams at once on one connection, and grpclib lets further calls queue for one. Calls that
wait a minute for a generation's end would so block everything else: they get lanes of their own, and no queue.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Lanes(Generic[T]):
    """`lanes` with room for `per_lane` calls each."""

    def __init__(self, lanes: Sequence[T], *, per_lane: int) -> None:
        self._lanes = tuple(lanes)
        self._busy = [0] * len(self._lanes)
        self._per_lane = per_lane

    @contextmanager
    def taken(self) -> Iterator[T | None]:
        """The least busy lane, held inside; None when all are full."""
        index = min(range(len(self._busy)), key=self._busy.__getitem__)
        if self._busy[index] >= self._per_lane:
            yield None
            return
        self._busy[index] += 1
        try:
            yield self._lanes[index]
        finally:
            self._busy[index] -= 1
