"""How long the log's disk has been at one thing. A disk that hangs neither does what it is told nor says that it
cannot; so core has to say so itself, in its reasons for not being ready.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SLOW_S: Final = 5.0
"""Beyond what a sync takes on a disk that works, and beyond the two seconds that a foreign lock is waited for."""


class StallDetector:
    """Of one caller, which does one thing at a time."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around what is timed."""
        self._since_s = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            self._since_s = None

    @property
    def busy(self) -> bool:
        """Whether something is being timed."""
        return self._since_s is not None

    @property
    def trouble(self) -> str:
        """Why core is not ready; empty when nothing takes long."""
        slow = self._since_s is not None and asyncio.get_running_loop().time() - self._since_s > SLOW_S
        return "log: slow" if slow else ""
