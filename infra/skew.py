"""How far this machine's clock is from that of the queue and the store, by the `Date` of their answers.

Signatures and signed links are made with this machine's clock and checked against theirs: at 15 minutes of difference
every call is refused, and at much less a new link has expired already.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from infra.retry import Permanent, Retryable

_log = structlog.get_logger()
_ASK_EVERY_S: Final = 30.0
_DOUBT_S: Final = 1.0
AGREEING: Final = 3
"""Answers in a row beyond the bound that make a clock wrong: a resumed process may first read one old answer."""


class Skew:
    """Watches the clocks' difference. A clock off by more than `bound_s` is wrong; `wall_s` gives Unix seconds."""

    def __init__(self, bound_s: float, *, wall_s: Callable[[], float] = time.time) -> None:
        self._wall_s = wall_s
        self._bound_s = bound_s
        self._wrong = 0
        self._told = False
        self.ahead_s = 0.0
        """By how much this machine's clock is ahead of theirs; negative: behind."""

    def answered(self, date: str) -> None:
        """Takes the `Date` header of an answer that has just arrived. Ignores a malformed one."""
        try:
            theirs_s = parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError, IndexError, OverflowError):
            return
        self.ahead_s = self._wall_s() - theirs_s
        self._wrong = self._wrong + 1 if abs(self.ahead_s) > self._bound_s else 0
        if self.wrong != self._told:
            self._told = self.wrong
            _log.log(30 if self.wrong else 20, "clock.wrong" if self.wrong else "clock.right", **self._words())

    @property
    def wrong(self) -> bool:
        """Whether the clock is further off than the bound."""
        return self._wrong >= AGREEING

    def reasons(self) -> list[str]:
        """Why this process is not ready; empty while the clock is right."""
        if not self.wrong:
            return []
        side = "ahead of" if self.ahead_s > 0 else "behind"
        return [f"clock: {abs(self.ahead_s):.0f} s {side} that of queue and store: set this machine's clock"]

    async def watch(self, ask: Callable[[], Awaitable[object]]) -> None:
        """Calls `ask` in a loop, for a process that may have no other call to the store for hours. Any answer will do.

        While the clock is in doubt it asks every second, so that AGREEING answers are there soon.
        """
        while True:
            with suppress(Retryable, Permanent):
                await ask()
            in_doubt = bool(self._wrong) and not self.wrong
            await asyncio.sleep(_DOUBT_S if in_doubt else _ASK_EVERY_S)

    def register(self, registry: CollectorRegistry) -> None:
        """Exports the difference as a gauge, in seconds."""
        gauge = Gauge(
            "darkroom_clock_ahead_seconds", "This machine's clock ahead of queue and store", registry=registry
        )
        gauge.set_function(lambda: self.ahead_s)

    def _words(self) -> dict[str, float]:
        return {"ahead_s": round(self.ahead_s, 1), "bound_s": self._bound_s}
