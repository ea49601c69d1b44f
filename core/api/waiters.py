"""Calls that wait for the end of a generation: a bounded number, shared among tenants.

When all permits are taken, the tenant that holds most gives one up to a tenant with fewer. The displaced call is
answered early; a call that gets no permit is answered at once.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable

from infra.fairness import Permits


class Waiters:
    """Lets at most `limit` calls wait at a time."""

    def __init__(self, limit: int) -> None:
        self._permits = Permits(limit)
        self._waiting: defaultdict[str, dict[asyncio.Future[None], None]] = defaultdict(dict)
        self._stopping = False

    def __len__(self) -> int:
        return len(self._permits)

    async def wait(self, tenant: str, generation_id: str, wait_s: float) -> None:
        """Wait until the generation has ended, for at most `wait_s` seconds. Returns earlier when displaced or stopped,
        and at once without a permit.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        permit = None if self._stopping else self._permits.acquire(tenant, lambda: _wake([waiter]))
        if permit is None:
            return
        self._waiting[generation_id][waiter] = None
        try:
            async with asyncio.timeout(wait_s):
                await waiter
        except TimeoutError:
            pass
        finally:
            permit.release()
            others = self._waiting[generation_id]
            others.pop(waiter, None)
            if not others:
                del self._waiting[generation_id]

    def ended(self, generation_id: str) -> None:
        """Wake the calls that wait for this generation."""
        if generation_id in self._waiting:
            _wake(self._waiting[generation_id])

    def stop(self) -> None:
        """End all waits, and let no call wait from now on."""
        self._stopping = True
        for waiters in self._waiting.values():
            _wake(waiters)


def _wake(waiters: Iterable[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
