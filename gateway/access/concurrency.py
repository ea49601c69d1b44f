"""Requests under way: so many, shared out among tenants, so that one tenant's long ones leave places for the others.

A connection whose request is under way is never cut, so without this one tenant that waits on all of them would shut
everybody out. Fewer are allowed than there are connections: what is left is for clients of whom nothing is known yet.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.errors import Unavailable
from infra.fairness import Seats


class Place:
    """One request's place. Once it is needed for a tenant that has fewer, what can be cut short should be."""

    def __init__(self) -> None:
        self.needed = False
        self._act: Callable[[], None] = _nothing

    @contextmanager
    def once_needed(self, act: Callable[[], None]) -> Iterator[None]:
        """Inside, `act` is called once the place is needed, or at once if it is."""
        self._act = act
        if self.needed:
            act()
        try:
            yield
        finally:
            self._act = _nothing

    def give_up(self) -> None:
        """The place is needed."""
        self.needed = True
        self._act()


class Crowd:
    """At most nine tenths of `connections` requests under way."""

    def __init__(self, connections: int) -> None:
        self._seats = Seats(max(1, connections * 9 // 10))

    def __len__(self) -> int:
        return len(self._seats)

    @contextmanager
    def place(self, tenant: str) -> Iterator[Place]:
        """A place for one request of the tenant. Raises Unavailable when there is none, and nobody has more."""
        place = Place()
        seat = self._seats.take(tenant, place.give_up)
        if seat is None:
            raise Unavailable("Too many requests are under way.", retry_after_s=1)
        try:
            yield place
        finally:
            seat.leave()


def _nothing() -> None:
    pass
