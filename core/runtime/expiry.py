"""Ends generations whose time to live has run out, in core's running time."""

import asyncio
from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from core.context import Context
from core.domain import commands as c
from core.domain.transaction import Change, Order
from core.runtime.writer import Writer
from infra.retry import Retryable

_AT_ONCE = 100
_LONGEST_SLEEP_S = 60.0
_AGAIN_MS = 1_000
_SLACK = 64


class Expiry:
    """Follows the writer and keeps a heap of deadlines."""

    def __init__(self, writer: Writer, context: Context) -> None:
        self._writer = writer
        self._now_ms = context.now_ms
        self._metrics = context.metrics
        self._heap: list[tuple[int, str]] = []
        self._mortal: set[str] = set()
        self._wake = asyncio.Event()

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Add the deadlines of new generations, and drop those of ended ones."""
        for before, after in changes:
            if not after.open:
                self._mortal.discard(after.id)
            elif before is None and after.expires_at_running_ms:
                self._mortal.add(after.id)
                self._push(after.expires_at_running_ms, after.id)
                self._wake.set()

    async def run(self) -> None:
        """Expire what is due. Never returns."""
        while True:
            self._wake.clear()
            due = self._due()
            if due:
                await self._expire(due)
                continue
            left_s = (self._heap[0][0] - self._now_ms()) / 1000 if self._heap else _LONGEST_SLEEP_S
            try:
                async with asyncio.timeout(max(0.0, min(left_s, _LONGEST_SLEEP_S))):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _due(self) -> list[str]:
        due: list[str] = []
        while len(due) < _AT_ONCE and self._heap and self._heap[0][0] <= self._now_ms():
            _, generation_id = heappop(self._heap)
            if generation_id in self._mortal:
                due.append(generation_id)
        return due

    async def _expire(self, due: Sequence[str]) -> None:
        try:
            results = await self._writer.carry_out([Order(each, c.Expire()) for each in due])
        except Retryable:
            results = []
        self._metrics.expired.inc(sum(result.changed for result in results))
        for each in due:
            # Still open, so try again: the log is full, or all images are decided and one decision may be revoked.
            if each in self._mortal:
                self._push(self._now_ms() + _AGAIN_MS, each)

    def _push(self, at_ms: int, generation_id: str) -> None:
        if len(self._heap) > 2 * len(self._mortal) + _SLACK:  # most entries are of ended generations: rebuild
            states = self._writer.open
            self._heap = [(states[each].expires_at_running_ms, each) for each in self._mortal if each in states]
            heapify(self._heap)
        heappush(self._heap, (at_ms, generation_id))
