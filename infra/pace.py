"""Holds back calls to a service that answers none of them, all callers of a process together.

Every loop has a back-off of its own, but many loops fail at once, and on AWS each failed call costs money too. While
the service answers, nothing is ever held back: only after `FREE` failures in a row, without a success in between, do
calls go out one at a time, at growing distances, until one succeeds. Pure but for the event loop's clock.
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
