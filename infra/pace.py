"""Spaces out the calls of a whole process to a service that answers none of them.

Every loop has its own back-off, but in an outage many loops fail at once, and AWS bills failed calls too. While the
service answers, no call is delayed. After `FREE` failures in a row, calls go out one at a time at growing intervals,
until one succeeds. Needs nothing but the event loop's clock.
"""

import asyncio
from collections.abc import Callable
from typing import Final

FREE: Final = 5
"""Failures in a row after which calls are spaced out."""
FIRST_S: Final = 0.25
LONGEST_S: Final = 8.0
_JITTER: Final = 0.25


class Pace:
    """One per service and process. `draw` gives numbers from 0 to 1."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._failures = 0
        self._spaced = 0
        self._next_s = 0.0
        self._opened = asyncio.Event()

    async def turn(self) -> None:
        """Returns when the call may go out."""
        loop = asyncio.get_running_loop()
        while self._failures >= FREE:
            now_s = loop.time()
            # All waiters wake at `_next_s`. The first one moves it forward before it returns, so the others wait again.
            if now_s >= self._next_s:
                gap_s = min(LONGEST_S, FIRST_S * 2.0 ** min(self._spaced, 30))
                self._spaced += 1
                self._next_s = now_s + gap_s * (1 + _JITTER * self._draw())
                return
            try:
                async with asyncio.timeout_at(self._next_s):
                    await self._opened.wait()
            except TimeoutError:
                pass

    def worked(self) -> None:
        """The service has answered a call: all go out at once again."""
        if self._failures:
            self._failures = self._spaced = 0
            self._next_s = 0.0
            self._opened.set()
            self._opened = asyncio.Event()

    def failed(self) -> None:
        """A call was refused, or not answered."""
        self._failures += 1
