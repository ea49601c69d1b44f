"""Bounded resources shared among several owners: the owner that holds most gives way to one that holds less.

Longest queue drop (Suter and others, INFOCOM 1998): while there is room, an owner may use all of it; when there is
none, a newcomer displaces something of the owner that holds most, unless that owner would then hold less than the
newcomer. So with n owners, none below limit/n is ever refused or displaced, and no capacity stays unused. Owners are
served in turn, one item each. Every operation costs O(1), however many owners there are. Knows asyncio only.

For what can be given up without loss: submissions that core has not decided, calls that wait, unread queries. Accepted
work cannot be given up, and core has a rule of its own for it (core/domain/shares.py).
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Full(Exception):
    """There is no room, and no owner holds enough more than the newcomer to be displaced."""


class OwnerCounts:
    """How many items each owner holds, and which owner holds most."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._owners: dict[int, dict[str, None]] = {}
        self._most = 0
        self.total = 0

    def of(self, owner: str) -> int:
        """The number of items that the owner holds."""
        return self._counts.get(owner, 0)

    @property
    def owners(self) -> int:
        """The number of owners that hold at least one item."""
        return len(self._counts)

    def change(self, owner: str, by: int) -> None:
        """Adds `by`, which is +1 or -1, to what the owner holds."""
        before = self.of(owner)
        after = before + by
        self.total += by
        if before:
            del self._owners[before][owner]
            if not self._owners[before]:
                del self._owners[before]
        if after:
            self._counts[owner] = after
            self._owners.setdefault(after, {})[owner] = None
        else:
            self._counts.pop(owner, None)
        self._most = max(self._most, after)
        while self._most and self._most not in self._owners:
            self._most -= 1

    def largest(self) -> str:
        """The owner that holds most; of several, the one that has done so for longest."""
        return next(iter(self._owners[self._most]))

    def displaced_by(self, newcomer: str) -> str | None:
        """The owner that gives one up for the newcomer; None if no owner holds at least two more than the newcomer."""
        return self.largest() if self._most > self.of(newcomer) + 1 else None


class Permit:
    """One unit of a bounded resource. `release` returns it, and does nothing if the permit has been displaced."""

    __slots__ = ("_release", "displaced", "owner")

    def __init__(self, owner: str, displaced: Callable[[], None], release: "Callable[[Permit], None]") -> None:
        self.owner = owner
        self.displaced = displaced
        self._release = release

    def release(self) -> None:
        """Returns the permit."""
        self._release(self)


class Permits:
    """At most `limit` permits, each held until it is released or displaced for an owner that holds fewer."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts = OwnerCounts()
        self._held: dict[str, dict[Permit, None]] = {}

    def __len__(self) -> int:
        return self._counts.total

    def acquire(self, owner: str, displaced: Callable[[], None]) -> Permit | None:
        """Returns a permit, or None if there is no room and no owner holds at least two permits more than this one.

        `displaced` is called when the permit is displaced. Of the owner that gives way, the newest permit goes first.
        """
        if self._counts.total >= self._limit:
            loser = self._counts.displaced_by(owner)
            if loser is None:
                return None
            newest = next(reversed(self._held[loser]))
            newest.release()
            newest.displaced()
        permit = Permit(owner, displaced, self._release)
        self._held.setdefault(owner, {})[permit] = None
        self._counts.change(owner, +1)
        return permit

    def _release(self, permit: Permit) -> None:
        held = self._held.get(permit.owner)
        if held is None or permit not in held:
            return
        del held[permit]
        if not held:
            del self._held[permit.owner]
        self._counts.change(permit.owner, -1)


class RoundRobinQueue(Generic[T]):
    """At most `limit` waiting items, in one queue per owner; the owners are served in turn."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts = OwnerCounts()
        self._queues: OrderedDict[str, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return self._counts.total

    def push(self, owner: str, item: T) -> T | None:
        """Appends an item to its owner's queue. Returns the item displaced for it, if any. Raises Full."""
        displaced: T | None = None
        if self._counts.total >= self._limit:
            loser = self._counts.displaced_by(owner)
            if loser is None:
                raise Full
            displaced = self._queues[loser].pop()
            self._took(loser)
        self._queues.setdefault(owner, deque()).append(item)
        self._counts.change(owner, +1)
        return displaced

    def pop(self) -> T:
        """Removes and returns the oldest item of the owner whose turn it is. Raises IndexError if there is none."""
        if not self._queues:
            raise IndexError("nothing waits")
        owner = next(iter(self._queues))
        item = self._queues[owner].popleft()
        self._queues.move_to_end(owner)
        self._took(owner)
        return item

    def _took(self, owner: str) -> None:
        self._counts.change(owner, -1)
        if not self._queues[owner]:
            del self._queues[owner]


class FairSemaphore:
    """A semaphore of `permits` whose waiters, at most `waiting`, are served in turn by owner."""

    def __init__(self, permits: int, *, waiting: int) -> None:
        self._free = permits
        self._waiting: RoundRobinQueue[asyncio.Future[None]] = RoundRobinQueue(waiting)

    @property
    def waiting(self) -> int:
        """The number of waiters, including cancelled ones whose turn has not come."""
        return len(self._waiting)

    @asynccontextmanager
    async def holding(self, owner: str) -> AsyncIterator[None]:
        """Holds a permit inside. Raises Full, at once or when an owner with fewer waiters displaces this one."""
        await self.acquire(owner)
        try:
            yield
        finally:
            self.release()

    async def acquire(self, owner: str) -> None:
        """Takes a permit at the owner's turn; `release` returns it. Raises Full."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        displaced = self._waiting.push(owner, turn)
        if displaced is not None and not displaced.done():
            displaced.set_exception(Full())
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release()  # the permit was granted just before the cancellation
            raise

    def release(self) -> None:
        """Returns a permit, which goes to the owner whose turn it is."""
        while len(self._waiting):
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
