"""Turns jobs that the queue has moved to its dead-letter queue into events.

If the image was not started, the event makes it pending, and the dispatcher sends it again without waiting for its
recheck. For other jobs there is nothing to record. A dead letter is deleted once its event, if any, is durable; after a
crash in between it is received again, which changes nothing. Messages that are not jobs stay for operators
(`dead_letters`). Each look hides all dead letters from other readers, usually for about a second. While the queue
cannot be reached, rechecks find the same images later, so core stays ready.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog

from core.context import Context
from core.dispatch.dead_letters import DeadLetter, DeadLetters
from core.domain import commands as c
from core.domain.transaction import Order, Result
from core.ports import DeadLetterQueue
from core.runtime.provisioning import Provisioning
from core.runtime.writer import Writer
from infra.retry import Backoff, Missing, Permanent, Retryable
from schema import fast

_log = structlog.get_logger()
MOST: Final = 500
"""Dead letters in one look, and orders in one call of the writer. When as many messages stay for operators, a look may
not reach the jobs behind them; those images then wait for their rechecks.
"""

_SHORTEST_HIDDEN_S: Final = 5
_LONGEST_REST_S: Final = 60.0
_NOT_MADE: Final = "dead_letters.queues_not_made"


class DeadLetterConsumer:
    """Looks at the queue every `every_s` seconds, and again at once while there is more to take."""

    def __init__(
        self, writer: Writer, queue: DeadLetterQueue, provisioning: Provisioning, context: Context, *, every_s: float
    ) -> None:
        self._writer = writer
        self._queue = queue
        self._provisioning = provisioning
        self._every_s = every_s
        self._hidden_s = max(_SHORTEST_HIDDEN_S, int(2 * every_s))
        self._failpoints = context.failpoints
        self._rng = context.rng
        self._metrics = context.metrics
        self._kept = 0

    async def run(self) -> None:
        """Consume dead-lettered jobs. Never returns."""
        backoff = Backoff(first_s=1.0, cap_s=_LONGEST_REST_S, rng=self._rng)
        await self._provisioning.try_ensure(_NOT_MADE)
        while True:
            try:
                more = await self._look()
            except (Retryable, Permanent) as error:
                self._metrics.dead_letter_looks.labels("failed").inc()
                _log.warning("dead_letters.delayed", reason=str(error))
                if isinstance(error, Missing):
                    await self._provisioning.try_ensure(_NOT_MADE)
                await backoff.pause()
                continue
            self._metrics.dead_letter_looks.labels("done").inc()
            backoff.reset()
            if not more:
                await asyncio.sleep(self._every_s)

    async def _look(self) -> bool:
        """Take one look; returns whether there may be more jobs. Raises Retryable or Permanent."""
        letters = DeadLetters(self._queue, {}, hidden_s=self._hidden_s)
        try:
            found = await letters.look(MOST)
            jobs = [each for each in found if isinstance(each.message, fast.ImageJob)]
            taken = await self._take(letters, jobs)
        except (Retryable, Permanent):
            with suppress(Retryable, Permanent):  # without it they show again after their visibility timeout
                await letters.release()
            raise
        await letters.release()
        self._note_kept(len(found) - len(jobs))
        return len(found) >= MOST and taken > 0

    async def _take(self, letters: DeadLetters, jobs: Sequence[DeadLetter]) -> int:
        """Record the jobs, then delete their dead letters; returns how many were deleted."""
        if not jobs:
            return 0
        results = await self._writer.carry_out([_order(each) for each in jobs])
        for letter, result in zip(jobs, results, strict=True):
            self._note(letter, result)
        await self._failpoints.reach("core.before_dead_letter_delete")
        return await letters.discard(jobs)

    def _note(self, letter: DeadLetter, result: Result) -> None:
        self._metrics.dead_letters.labels("recorded" if result.changed else "moot").inc()
        if result.changed:
            _log.warning("image.dead_lettered", about=letter.about)

    def _note_kept(self, kept: int) -> None:
        self._metrics.dead_letters_kept.set(kept)
        if kept > self._kept:
            _log.warning("dead_letters.kept", count=kept, advice="python -m core dead-letters")
        self._kept = kept


def _order(letter: DeadLetter) -> Order:
    job = letter.message
    assert isinstance(job, fast.ImageJob)  # noqa: S101
    return Order(job.image.generation_id, c.RecordDeadLetter(index=job.image.index, dispatch=job.dispatch))
