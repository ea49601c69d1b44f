"""How long one call to the log's disk has taken. A disk that hangs raises no error, so a call without an end has to
show in core's reasons for not being ready.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SLOW_S: Final = 5.0
"""Longer than a sync on a disk that works, and than the two seconds of waiting for a foreign lock."""


class StallDetector:
    """For one caller, which makes one call at a time."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around the call."""
        self._since_s = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            self._since_s = None

    @property
    def busy(self) -> bool:
        """Whether a call is in progress."""
        return self._since_s is not None

    @property
    def trouble(self) -> str:
        """Why core is not ready; empty unless a call takes long."""
        slow = self._since_s is not None and asyncio.get_running_loop().time() - self._since_s > SLOW_S
        return "log: slow" if slow else ""
