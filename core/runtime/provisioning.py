"""Sees to it that queues and buckets are there: makes them at start, again when they went missing, and tells
whether the store can be reached.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from core.ports import TempStore
from infra.retry import Permanent, Retryable, backoff_s

_log = structlog.get_logger()
_LOOK_EVERY_S = 5.0
_NOT_AGAIN_S = 0.5
_NOBODYS_KEY = "temp/none"


class Provisioning:
    """`make` creates what is missing (or nothing, where that is not core's to do)."""

    def __init__(self, make: Callable[[], Awaitable[None]], temp: TempStore, *, rng: Callable[[], float]) -> None:
        self._make = make
        self._temp = temp
        self._rng = rng
        self._lock = asyncio.Lock()
        self._made_at_s = float("-inf")
        self.trouble = "queues and buckets: not looked at yet"

    async def heal(self) -> None:
        """Make what is missing, unless that has just been done. Raises Retryable or Permanent."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if now - self._made_at_s >= _NOT_AGAIN_S:
                await self._make()
                self._made_at_s = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Look, for ever."""
        failures = 0
        made = False
        while True:
            try:
                if not made:
                    await self.heal()
                    made = True
                await self._temp.head(_NOBODYS_KEY)
            except (Retryable, Permanent) as error:
                self.trouble = f"queues and buckets: {error}"
                _log.warning("surroundings.unreachable", reason=str(error))
                made = False  # whatever comes back may come back empty
                await asyncio.sleep(backoff_s(failures, first_s=0.2, cap_s=5.0, draw=self._rng()))
                failures += 1
            else:
                self.trouble, failures = "", 0
                await asyncio.sleep(_LOOK_EVERY_S)
