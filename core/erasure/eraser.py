"""Erases generations: their ids go on the list of erasures first, then the erasures into the log.

The list is kept outside the log, so that a restored older log brings nothing back: `repeat_listed` compares the log
with it before anything is served. Callers are answered when both are durable; the prompt is deleted by then, and
`object_deletions` deletes the objects. `run` completes an erasure that failed half-way, which the list may already
hold.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from core.context import Context
from core.domain import commands as c
from core.domain.events import Cause
from core.domain.transaction import Order, Result
from core.errors import FATAL
from core.ports import ErasureList, Retained
from core.runtime.writer import Writer
from infra.retry import Backoff, Permanent, Retryable

_log = structlog.get_logger()
MAX_OWED: Final = 1_000
"""Erasures in progress at once, including those that failed half-way; more are refused."""

_LONGEST_REST_S: Final = 30.0


class Eraser:
    """Erases in two steps, list and log, and keeps in memory which erasures have not completed both."""

    def __init__(
        self,
        writer: Writer,
        log: Retained,
        listed: ErasureList,
        context: Context,
    ) -> None:
        self._writer = writer
        self._log = log
        self._list = listed
        self._failpoints = context.failpoints
        self._rng = context.rng
        self._metrics = context.metrics
        self._owed: dict[str, Cause] = {}
        self._stuck = asyncio.Event()
        self.trouble = "list of erasures: not looked up yet"

    async def erase(self, generation_ids: Sequence[str], cause: Cause) -> Sequence[Result]:
        """Erase ended generations. Raises Retryable when too many erasures are in progress (nothing is done then), or
        when one of the two steps failed; `run` completes those.
        """
        if len(self._owed) + len(generation_ids) > MAX_OWED:
            raise Retryable("too many erasures are in progress")
        wanted = dict.fromkeys(generation_ids, cause)
        self._owed |= wanted
        try:
            return await self._erase(wanted)
        except FATAL:
            raise
        except Permanent as error:
            raise Retryable(str(error)) from error
        finally:
            if wanted.keys() & self._owed.keys():
                self._stuck.set()

    async def _erase(self, wanted: Mapping[str, Cause]) -> Sequence[Result]:
        await self._list.note(list(wanted))
        await self._failpoints.reach("core.after_erasure_listed")
        orders = [Order(each, c.Erase(cause=cause)) for each, cause in wanted.items()]
        results = await self._writer.carry_out(orders)
        for each, result in zip(wanted, results, strict=True):
            self._owed.pop(each, None)
            if result.changed:
                self._metrics.erased.labels(wanted[each].name.lower()).inc()
        return results

    async def run(self) -> None:
        """Complete erasures that failed half-way. Never returns."""
        backoff = Backoff(first_s=1.0, cap_s=_LONGEST_REST_S, rng=self._rng)
        while True:
            await self._stuck.wait()
            self._stuck.clear()
            await backoff.pause()
            owed = dict(self._owed)
            try:
                if owed:
                    await self._erase(owed)
            except FATAL:
                raise
            except (Retryable, Permanent) as error:
                _log.warning("erasure.delayed", count=len(owed), reason=str(error))
                self._stuck.set()
            else:
                backoff.reset()

    async def repeat_listed(self) -> None:
        """Erase again what the list names and this log still holds. Call it before the loops run and before the open
        generations are announced. Waits while the list or the log cannot be used.
        """
        backoff = Backoff(first_s=0.2, cap_s=5.0, rng=self._rng)
        while True:
            try:
                erased = await self._repeat_listed()
            except FATAL:  # it is unknown whether they are erased: the next start compares the list again
                raise
            except (Retryable, Permanent) as error:
                self.trouble = f"list of erasures: {error}"
                _log.warning("erasures.not_looked_up", reason=str(error))
                await backoff.pause()
            else:
                self.trouble = ""
                if erased:
                    _log.warning("erasures.repeated", count=erased)
                return

    async def _repeat_listed(self) -> int:
        erased = 0
        async for ids in self._list.noted(fresh=self._log.began_empty):
            wanted = await self._log.not_erased(ids)
            if wanted:
                results = await self._writer.carry_out_unannounced([Order(each, c.EraseAgain()) for each in wanted])
                erased += sum(result.changed for result in results)
        return erased
