"""Gives messages back to the jobs queue, or deletes them outside the normal course. Best effort: a failed call costs a
redelivery once the visibility timeout has passed, so no call is repeated.

Used where no reply is outstanding: at shutdown, for duplicates, for quarantined messages. Messages of images that were
answered are deleted by `output/settling`, which retries until that succeeds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from infra.retry import Permanent, Retryable, error_text
from worker.context import Context
from worker.ports import JobQueue

_log = structlog.get_logger()
CALL_DEADLINE_S = 10.0


class Leases:
    """Ends leases on messages before their visibility timeout does."""

    def __init__(self, context: Context, queue: JobQueue) -> None:
        self._context = context
        self._queue = queue

    async def give_back(self, receipts: Sequence[str]) -> None:
        """Make these messages visible to other workers now."""
        if receipts:
            await best_effort(self._context, "release", lambda: self._queue.extend(receipts, 0))

    async def delete(self, receipts: Sequence[str]) -> None:
        """Delete these messages."""
        if receipts:
            await best_effort(self._context, "delete", lambda: self._queue.delete(receipts))


async def best_effort(
    context: Context, name: str, call: Callable[[], Awaitable[Sequence[bool]]]
) -> Sequence[bool] | None:
    """The answer of a queue call, or None after a failure, which is counted and logged under `name`."""
    try:
        async with asyncio.timeout(CALL_DEADLINE_S):
            return await call()
    except (Retryable, Permanent, TimeoutError) as error:
        context.metrics.call_failures.labels(call=name).inc()
        _log.warning("call.failed", call=name, reason=error_text(error))
        return None
