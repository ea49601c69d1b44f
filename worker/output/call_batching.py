"""Batches queue calls: items that arrive while a call is in flight are sent together by the next.

No timer: a lone item is sent at once. Used for replies and for deletions, ten items to a call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import structlog

from infra.retry import Permanent, Retryable, backoff_s, error_text
from worker.context import Context

T = TypeVar("T")
_log = structlog.get_logger()
_Entry = tuple[T, "asyncio.Future[None]"]


class CallBatcher(Generic[T]):
    """`flush` makes one call and says for each item whether it succeeded. Items that failed are retried with full
    jitter and without end: a reply is the only record of a picture, and a message that is not deleted is rendered
    again. At most `limit` items go into a call, and at most `bound` wait; a call may take `deadline_s` seconds.
    """

    def __init__(
        self,
        context: Context,
        name: str,
        flush: Callable[[Sequence[T]], Awaitable[Sequence[bool]]],
        *,
        limit: int = 10,
        bound: int = 256,
        deadline_s: float = 20.0,
    ) -> None:
        self._context = context
        self._name = name
        self._flush = flush
        self._limit = limit
        self._deadline_s = deadline_s
        self._queue: asyncio.Queue[_Entry[T]] = asyncio.Queue(bound)

    def depth(self) -> int:
        """Items that are in no call yet."""
        return self._queue.qsize()

    async def submit_all(self, items: Sequence[T]) -> None:
        """Returns once all have succeeded. Waits while the queue is full."""
        loop = asyncio.get_running_loop()
        entries: list[_Entry[T]] = [(item, loop.create_future()) for item in items]
        for entry in entries:
            await self._queue.put(entry)
        for _, future in entries:
            await future

    async def run(self) -> None:
        """Sends until cancelled. The worker runs two, so that one call is in flight while the other gathers items."""
        while True:
            entries = [await self._queue.get()]
            while len(entries) < self._limit and not self._queue.empty():
                entries.append(self._queue.get_nowait())
            await self._until_done(entries)

    async def _until_done(self, entries: list[_Entry[T]]) -> None:
        attempt = 0
        while entries := await self._once(entries):
            await asyncio.sleep(backoff_s(attempt, first_s=0.2, cap_s=10.0, draw=self._context.rng()))
            attempt += 1

    async def _once(self, entries: list[_Entry[T]]) -> list[_Entry[T]]:
        """Makes one call. Returns the entries that have to be sent again."""
        try:
            async with asyncio.timeout(self._deadline_s):
                done = await self._flush([item for item, _ in entries])
        except (Retryable, Permanent, TimeoutError) as error:
            self._context.metrics.call_failures.labels(call=self._name).inc()
            self._context.health.mark_unready(self._name, f"{self._name}: {error_text(error)}")
            _log.warning("call.failed", call=self._name, items=len(entries), reason=error_text(error))
            return entries
        self._context.health.clear(self._name)
        left = []
        for entry, ok in zip(entries, done, strict=True):
            if not ok:
                left.append(entry)
            elif not entry[1].done():  # done if its submitter was cancelled
                entry[1].set_result(None)
        return left
