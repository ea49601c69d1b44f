"""Creates queues and buckets, at start and again when one is missing, and checks whether the store can be reached."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from core.context import Context
from core.ports import TempStore
from infra.retry import Backoff, Permanent, Retryable

_log = structlog.get_logger()
_LOOK_EVERY_S = 5.0
_NOT_AGAIN_S = 0.5
_ABSENT_KEY = "temp/none"


class Provisioning:
    """`make` creates what is missing, or nothing where core may not create queues and buckets."""

    def __init__(self, make: Callable[[], Awaitable[None]], temp: TempStore, context: Context) -> None:
        self._make = make
        self._temp = temp
        self._rng = context.rng
        self._lock = asyncio.Lock()
        self._made_at_s = float("-inf")
        self.trouble = "queues and buckets: not looked at yet"

    async def ensure(self) -> None:
        """Create what is missing, unless that was done in the last 0.5 s. Raises Retryable or Permanent."""
        async with self._lock:  # many loops find the same queue missing at once; one of them creates it
            now = asyncio.get_running_loop().time()
            if now - self._made_at_s >= _NOT_AGAIN_S:
                await self._make()
                self._made_at_s = asyncio.get_running_loop().time()

    async def try_ensure(self, event: str) -> None:
        """As `ensure`, but logs an error as `event` instead of raising it: the caller's next attempt shows it."""
        try:
            await self.ensure()
        except (Retryable, Permanent) as error:
            _log.warning(event, reason=str(error))

    async def run(self) -> None:
        """Create what is missing, at start and after each failure, and check the store every 5 s. Never returns."""
        backoff = Backoff(first_s=0.2, cap_s=5.0, rng=self._rng)
        made = False
        while True:
            try:
                if not made:
                    await self.ensure()
                    made = True
                await self._temp.head(_ABSENT_KEY)  # no such object: any answer shows that the store is reachable
            except (Retryable, Permanent) as error:
                self.trouble = f"queues and buckets: {error}"
                _log.warning("surroundings.unreachable", reason=str(error))
                made = False  # after an outage the service may have lost its queues and buckets
                await backoff.pause()
            else:
                self.trouble = ""
                backoff.reset()
                await asyncio.sleep(_LOOK_EVERY_S)
