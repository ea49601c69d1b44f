"""The limit on requests in flight, shared among tenants, so that one tenant's long requests leave room for others.

The connection of a request in flight is never closed, so without this limit one tenant that waits on every connection
would shut all others out. The limit is below the number of connections: the rest is for clients whose tenant is not
known yet.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.errors import Unavailable
from infra.fairness import Permits


class RequestSlot:
    """One request in flight. Once `displaced` for a tenant that has fewer, it should end a wait early.

    It no longer counts then, so a few more requests than the limit may run until such waits have ended.
    """

    def __init__(self) -> None:
        self.displaced = False
        self._act: Callable[[], None] = _nothing

    @contextmanager
    def on_displaced(self, act: Callable[[], None]) -> Iterator[None]:
        """Calls `act` if the slot is displaced during the block, or at once if it was displaced before."""
        self._act = act
        if self.displaced:
            act()
        try:
            yield
        finally:
            self._act = _nothing

    def displace(self) -> None:
        """Asks the request to end early."""
        self.displaced = True
        self._act()


class RequestLimit:
    """At most nine tenths of `connections` requests in flight."""

    def __init__(self, connections: int) -> None:
        self._permits = Permits(max(1, connections * 9 // 10))

    def __len__(self) -> int:
        return len(self._permits)

    @contextmanager
    def slot(self, tenant: str) -> Iterator[RequestSlot]:
        """A slot for one request of the tenant. Raises Unavailable if none is free and none can be displaced."""
        slot = RequestSlot()
        permit = self._permits.acquire(tenant, slot.displace)
        if permit is None:
            raise Unavailable("Too many requests are under way.", retry_after_s=1)
        try:
            yield slot
        finally:
            permit.release()


def _nothing() -> None:
    pass
