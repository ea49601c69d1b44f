"""Keeps the messages of all held jobs hidden from other workers, from receipt until they are deleted.

Runs on the event loop beside everything else, at a third of the visibility timeout, so that two beats may fail.
"""

import asyncio

import structlog

from infra.retry import Permanent, Retryable, error_text
from worker.context import Context
from worker.holding.window import Window
from worker.ports import JobQueue

_log = structlog.get_logger()


class Heartbeat:
    """Extends all leases, as one task of the worker."""

    def __init__(self, context: Context, window: Window, queue: JobQueue, *, visibility_s: int) -> None:
        self._context = context
        self._window = window
        self._queue = queue
        self._visibility_s = visibility_s

    async def run(self) -> None:
        """Beats until cancelled; after a failed beat, four times as often."""
        good = True
        while True:
            await asyncio.sleep(self._visibility_s / (3 if good else 12))
            good = await self.beat()

    async def beat(self) -> bool:
        """Extends everything that is held now. False when the call failed."""
        entries = self._window.receipts()
        await self._context.failpoints.reach("worker.heartbeat")
        if not entries:
            return True
        try:
            async with asyncio.timeout(self._visibility_s / 4):
                valid = await self._queue.extend([receipt for _, _, receipt in entries], self._visibility_s)
        except (Retryable, Permanent, TimeoutError) as error:
            self._context.metrics.heartbeats.labels(outcome="failed").inc()
            _log.warning("heartbeat.failed", held=len(entries), reason=error_text(error))
            return False
        self._context.metrics.heartbeats.labels(outcome="ok").inc()
        for (held, message_id, receipt), ok in zip(entries, valid, strict=True):
            if not ok:
                self._context.metrics.receipts_lost.inc()
                self._window.lost(held, message_id, receipt)
        return True
