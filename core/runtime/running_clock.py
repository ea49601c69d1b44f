"""Core's running time: milliseconds during which core ran, summed over all its starts.

Deadlines and rechecks count it, so that neither an outage nor a step of the wall clock moves them. It follows the
event loop's monotonic time, is persisted every second, and continues from there at the next start: a crash loses at
most that second. While a process is stopped or a machine paused, monotonic time may go on; running time then gains at
most `PAUSE_S`.
"""

import asyncio
from collections.abc import Callable

import structlog

from core.ports import Upkeep
from core.runtime.stall_detector import StallDetector
from infra.retry import Retryable

_log = structlog.get_logger()
PERSIST_EVERY_S = 1.0
PAUSE_S = 5.0
"""Core reads the clock every second; the part of a gap beyond this was a pause, not running time."""


class RunningClock:
    """Call `start` once before the first `now_ms`."""

    def __init__(self) -> None:
        self._base_ms = 0
        self._ran_s = 0.0
        self._seen_s = 0.0
        self._watch = StallDetector()

    @property
    def trouble(self) -> str:
        """Why core is not ready: saving the time takes long. Empty otherwise."""
        return self._watch.trouble

    def start(self, base_ms: int) -> None:
        """Continue from `base_ms`, the latest running time in the log."""
        self._base_ms = base_ms
        self._ran_s = 0.0
        self._seen_s = asyncio.get_running_loop().time()

    def now_ms(self) -> int:
        """The running time now, in milliseconds. It never decreases."""
        now_s = asyncio.get_running_loop().time()
        self._ran_s += min(now_s - self._seen_s, PAUSE_S)
        self._seen_s = now_s
        return self._base_ms + int(self._ran_s * 1000)

    async def persist(self, upkeep: Upkeep, saved: Callable[[Retryable | None], None]) -> None:
        """Save the running time every second; call `saved` with the error or None. Never returns. Raises LogBroken."""
        while True:
            await asyncio.sleep(PERSIST_EVERY_S)
            try:
                with self._watch.running():
                    await upkeep.save_running_ms(self.now_ms())
            except Retryable as error:
                _log.warning("clock.not_saved", reason=str(error))
                saved(error)
            else:
                saved(None)
