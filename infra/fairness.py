"""Bounded things that several owners want, shared out: who holds most gives way to who holds less. Knows asyncio only.

Longest queue drop (Suter and others, INFOCOM 1998): while there is room anybody may have all of it; when there is
none, a newcomer displaces something of the owner that holds most, unless that owner would then hold less. So with n
owners nobody below limit/n is ever refused or displaced, and nothing lies idle meanwhile. Lines are served in turn, one
item of each owner. Everything here costs O(1), however many owners there are.

For what can be given up without loss: submissions that nobody has decided, calls that wait, questions that nobody has
read. Accepted work cannot, and core has a rule of its own for it (core/domain/shares.py).
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Crowded(Exception):
    """There is no room, and nobody holds more than the newcomer."""


class Tally:
    """How many each owner holds, and who holds most."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._owners: dict[int, dict[str, None]] = {}
        self._most = 0
        self.total = 0

    def of(self, owner: str) -> int:
        """How many the owner holds."""
        return self._counts.get(owner, 0)

    @property
    def owners(self) -> int:
        """How many owners hold something."""
        return len(self._counts)

    def change(self, owner: str, by: int) -> None:
        """The owner holds one more, or one less."""
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

    def heaviest(self) -> str:
        """Who holds most; of several, whoever has done so for longest."""
        return next(iter(self._owners[self._most]))

    def gives_way(self, newcomer: str) -> str | None:
        """Who is to give one up for one of the newcomer; None: nobody, for nobody holds two more."""
        return self.heaviest() if self._most > self.of(newcomer) + 1 else None


class Seat:
    """A place that is held; `leave` gives it back, and may be called when it is lost already."""

    __slots__ = ("_leave", "displaced", "owner")

    def __init__(self, owner: str, displaced: Callable[[], None], leave: "Callable[[Seat], None]") -> None:
        self.owner = owner
        self.displaced = displaced
        self._leave = leave

    def leave(self) -> None:
        """Give the place back."""
        self._leave(self)


class Seats:
    """At most `limit` places, held for as long as their holders like, or until somebody needs one who holds less."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tally = Tally()
        self._held: dict[str, dict[Seat, None]] = {}

    def __len__(self) -> int:
        return self._tally.total

    def take(self, owner: str, displaced: Callable[[], None]) -> Seat | None:
        """A place, or None. `displaced` is called when it is lost: the owner's newest goes first."""
        if self._tally.total >= self._limit:
            loser = self._tally.gives_way(owner)
            if loser is None:
                return None
            newest = next(reversed(self._held[loser]))
            newest.leave()
            newest.displaced()
        seat = Seat(owner, displaced, self._leave)
        self._held.setdefault(owner, {})[seat] = None
        self._tally.change(owner, +1)
        return seat

    def _leave(self, seat: Seat) -> None:
        held = self._held.get(seat.owner)
        if held is None or seat not in held:
            return
        del held[seat]
        if not held:
            del self._held[seat.owner]
        self._tally.change(seat.owner, -1)


class FairQueue(Generic[T]):
    """At most `limit` items that wait, each owner's in a line of its own; the lines are served in turn."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tally = Tally()
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return self._tally.total

    def push(self, owner: str, item: T) -> T | None:
        """Put an item at the end of its owner's line. The item that had to go for it, if one had. Raises Crowded."""
        displaced: T | None = None
        if self._tally.total >= self._limit:
            loser = self._tally.gives_way(owner)
            if loser is None:
                raise Crowded
            displaced = self._lines[loser].pop()
            self._took(loser)
        self._lines.setdefault(owner, deque()).append(item)
        self._tally.change(owner, +1)
        return displaced

    def pop(self) -> T:
        """The oldest item of the owner whose turn it is. Raises IndexError when nothing waits."""
        if not self._lines:
            raise IndexError("nothing waits")
        owner = next(iter(self._lines))
        item = self._lines[owner].popleft()
        self._lines.move_to_end(owner)
        self._took(owner)
        return item

    def _took(self, owner: str) -> None:
        self._tally.change(owner, -1)
        if not self._lines[owner]:
            del self._lines[owner]


class Turns:
    """At most `places` at work at once; `waiting` more wait for their turn."""

    def __init__(self, places: int, *, waiting: int) -> None:
        self._free = places
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue(waiting)

    @property
    def waiting(self) -> int:
        """How many wait, those included that have given up and whose turn has not come."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Inside, one place is the caller's. Raises Crowded, at once or when somebody with fewer needs its place."""
        await self.enter(owner)
        try:
            yield
        finally:
            self.leave()

    async def enter(self, owner: str) -> None:
        """Take a place when it is the owner's turn; `leave` gives it back. Raises Crowded."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        displaced = self._waiting.push(owner, turn)
        if displaced is not None and not displaced.done():
            displaced.set_exception(Crowded())
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()  # its turn had come just then
            raise

    def leave(self) -> None:
        """Give a place back: it is whoever's turn it is now."""
        while len(self._waiting):
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
