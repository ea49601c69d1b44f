"""Deletes the objects of erased generations in both buckets until the store has confirmed it, and again later.

The log's table of deletions, written with the erasure, holds what is to be deleted, so a restart continues there. One
*look* deletes every key that the events name or that a copy may have, and everything under the generation's prefix in
the temporary bucket. A copy or an upload in progress may end after that. So there are more looks (`LOOKS_S`), the last
one about 31 hours of running time after the first, and a late result starts the series again. A generation whose
objects the store does not delete is deferred and delays no other.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from core.context import Context
from core.domain.object_keys import public_keys, temp_keys, temp_prefix
from core.domain.transaction import Change
from core.ports import Deletion, Deletions, PublicStore, TempStore
from infra.retry import Backoff, Permanent, Retryable

_log = structlog.get_logger()
LOOKS_S: Final = (60.0, 600.0, 3_600.0, 21_600.0, 86_400.0)
"""Running time from one look to the next. The first is longer than the deadline of any call to the store; the rest
are for workers that were stopped during an upload and sent no reply."""

_AT_ONCE: Final = 50
_PAUSE_S: Final = 0.05
"""The pause between two generations: at most 20 a second, so that deletions leave the store time for publishing."""
_IDLE_S: Final = 5.0
_REFUSALS: Final = 3
_FIRST_REST_S: Final = 1.0
_LONGEST_REST_S: Final = 60.0
_DEFER_S: Final = 10.0
_LONGEST_DEFER_S: Final = 3_600.0
_REMEMBERED: Final = 10_000


class ObjectDeletions:
    """Listens to the writer only to be woken: the log says what is due."""

    def __init__(
        self, log: Deletions, public: PublicStore, temp: TempStore, context: Context, *, looks_s: Sequence[float]
    ) -> None:
        self._log = log
        self._public = public
        self._temp = temp
        self._looks_s = looks_s
        self._now_ms = context.now_ms
        self._failpoints = context.failpoints
        self._rng = context.rng
        self._metrics = context.metrics
        self._failures: dict[str, int] = {}
        self._wake = asyncio.Event()

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Wake up when something is erased."""
        if any(after.erased for _, after in changes):
            self._wake.set()

    async def again(self, generation_ids: Sequence[str]) -> None:
        """Start the series of looks for these again, now. Durable when it returns. Raises Retryable."""
        if generation_ids:
            await self._log.write_deletions([Deletion(generation_id=each) for each in dict.fromkeys(generation_ids)])
            self._wake.set()

    async def run(self) -> None:
        """Delete what is due. Never returns."""
        backoff = Backoff(first_s=_FIRST_REST_S, cap_s=_LONGEST_REST_S, rng=self._rng)
        while True:
            self._wake.clear()
            try:
                due = await self._log.deletions(self._now_ms(), _AT_ONCE)
                worked = await self._round(due)
            except Retryable as error:  # the log's
                _log.warning("deletions.not_recorded", reason=str(error))
                worked = False
            if not worked:
                await backoff.pause()
                continue
            backoff.reset()
            if not due:
                await self._rest()

    async def _round(self, due: Sequence[Deletion]) -> bool:
        """Look at each once. False after three failures in a row, which mean that the store cannot be reached."""
        refused = 0
        for each in due:
            refused = 0 if await self._delete(each) else refused + 1
            if refused >= _REFUSALS:
                return False
        return True

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(_IDLE_S):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _delete(self, deletion: Deletion) -> bool:
        """Take one look; returns whether the store has confirmed it. Raises Retryable when the log fails."""
        generation_id = deletion.generation_id
        events = [each.event for each in await self._log.events_of(generation_id)]
        try:
            await self._failpoints.reach("core.before_erased_objects_go")
            await self._public.delete(public_keys(events))
            found = [key async for key in self._temp.keys(temp_prefix(generation_id))]
            await self._temp.delete(list(dict.fromkeys([*temp_keys(events), *found])))
            await self._failpoints.reach("core.after_erased_objects_went")
        except (Retryable, Permanent) as error:
            await self._defer(deletion, error)
            return False
        self._failures.pop(generation_id, None)
        self._metrics.deletions.labels("done").inc()
        await self._plan(deletion)
        await asyncio.sleep(_PAUSE_S)
        return True

    async def _plan(self, deletion: Deletion) -> None:
        """Schedule the next look, if there is one."""
        if deletion.looks >= len(self._looks_s):
            await self._log.write_deletions([], [deletion.generation_id])
            return
        due = self._now_ms() + int(1_000 * self._looks_s[deletion.looks])
        after = Deletion(generation_id=deletion.generation_id, due_running_ms=due, looks=deletion.looks + 1)
        await self._log.write_deletions([after])

    async def _defer(self, deletion: Deletion, error: Exception) -> None:
        """Postpone the look by 10 s, doubled with each failure up to an hour, so that the others come first."""
        if len(self._failures) >= _REMEMBERED:  # bounds memory; the delays then start at 10 s again
            self._failures.clear()
        failures = self._failures[deletion.generation_id] = self._failures.get(deletion.generation_id, 0) + 1
        rest_s = min(_DEFER_S * 2.0 ** min(failures - 1, 20), _LONGEST_DEFER_S)
        _log.warning("deletion.delayed", generation_id=deletion.generation_id, reason=str(error), failures=failures)
        self._metrics.deletions.labels("failed").inc()
        due = self._now_ms() + int(1_000 * rest_s)
        after = Deletion(generation_id=deletion.generation_id, due_running_ms=due, looks=deletion.looks)
        await self._log.write_deletions([after])
