"""Erases finished generations after their tenant's retention time, by the wall clock and by core's running time.

Both must have passed: neither a step of the wall clock nor a pause of core, whose running time stands still, erases
anything early. The log is read in order of position, a window at a time, and no state is kept that a restart would
lose. Erasures are made in small batches with pauses between them.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from core.context import Context
from core.domain.events import Cause
from core.erasure.eraser import Eraser
from core.ports import Ended, Retained
from infra.retry import Backoff, Retryable

_log = structlog.get_logger()
DAY_MS: Final = 86_400_000
_WINDOW: Final = 5_000
_AT_ONCE: Final = 20
_REST_S: Final = 1.0
"""Between two batches: 20 generations a second at most, which is 1.7 million a day."""
_WINDOW_REST_S: Final = 0.02
_OFTEN_S: Final = 1.0
_SELDOM_S: Final = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """How long finished generations are kept, in days; 0: until erased by request. `tenants` have their own."""

    days: float = 0.0
    tenants: Mapping[str, float] = field(default_factory=dict)

    def ms(self, tenant: str) -> int:
        """The retention time of this tenant in milliseconds; 0: unlimited."""
        return int(self.tenants.get(tenant, self.days) * DAY_MS)

    @property
    def shortest_ms(self) -> int:
        """The shortest retention time of all tenants, in milliseconds; 0: all are unlimited."""
        ends = [int(days * DAY_MS) for days in (self.days, *self.tenants.values()) if days]
        return max(1, min(ends)) if ends else 0


def due(found: Sequence[Ended], keep: Keep, *, at_ms: int, running_ms: int) -> list[str]:
    """The ids of the generations whose retention time is over on both clocks. Pure."""
    return [
        each.generation_id
        for each in found
        if (kept := keep.ms(each.tenant))
        and each.finished_at_ms + kept <= at_ms
        and each.finished_running_ms + kept <= running_ms
    ]


class Retention:
    """Works from the log alone; keeps no state between two passes."""

    def __init__(self, log: Retained, eraser: Eraser, context: Context, *, keep: Keep) -> None:
        self._log = log
        self._eraser = eraser
        self._keep = keep
        self._now_ms = context.now_ms
        self._wall_ms = context.wall_ms
        self._rng = context.rng

    async def run(self) -> None:
        """Pass over the log every 24th part of the shortest retention time (1 s to 1 h). Never returns."""
        shortest_s = self._keep.shortest_ms / 1_000
        rest_s = min(max(shortest_s / 24, _OFTEN_S), _SELDOM_S)
        backoff = Backoff(first_s=_OFTEN_S, cap_s=60.0, rng=self._rng)
        while True:
            if not shortest_s:
                await asyncio.sleep(_SELDOM_S)
                continue
            try:
                await self._pass()
            except Retryable as error:
                _log.warning("retention.delayed", reason=str(error))
                await backoff.pause()
            else:
                backoff.reset()
                await asyncio.sleep(rest_s)

    async def _pass(self) -> None:
        """One pass over all that is old enough by running time."""
        after, more = 0, True
        while more:
            found, after = await self._log.ended(
                after=after, until_running_ms=self._now_ms() - self._keep.shortest_ms, window=_WINDOW
            )
            more = bool(after)
            ids = due(found, self._keep, at_ms=self._wall_ms(), running_ms=self._now_ms())
            for start in range(0, len(ids), _AT_ONCE):
                await self._eraser.erase(ids[start : start + _AT_ONCE], Cause.RETENTION)
                await asyncio.sleep(_REST_S)
            await asyncio.sleep(_WINDOW_REST_S)
