"""Core's running time: milliseconds during which core ran, over all its lives.

Deadlines and rechecks count it, so that neither an outage nor a step of the wall clock moves them. It follows
the event loop's monotonic time, is persisted every second, and goes on from there at the next start: a crash
loses at most that second.
"""

import asyncio

import structlog

from core.ports import Upkeep
from infra.retry import Retryable

_log = structlog.get_logger()
PERSIST_EVERY_S = 1.0


class RunningClock:
    """Call `start` once before the first `now_ms`."""

    def __init__(self) -> None:
        self._base_ms = 0
        self._started_at_s = 0.0

    def start(self, base_ms: int) -> None:
        """Go on from `base_ms`."""
        self._base_ms = base_ms
        self._started_at_s = asyncio.get_running_loop().time()

    def now_ms(self) -> int:
        """Running time now."""
        return self._base_ms + int((asyncio.get_running_loop().time() - self._started_at_s) * 1000)

    async def persist(self, upkeep: Upkeep) -> None:
        """Save the running time every second, for ever. Raises LogBroken."""
        while True:
            await asyncio.sleep(PERSIST_EVERY_S)
            try:
                await upkeep.save_running_ms(self.now_ms())
            except Retryable as error:
                _log.warning("clock.not_saved", reason=str(error))
