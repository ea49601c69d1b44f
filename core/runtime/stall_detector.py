"""Detects a call to the log's disk that takes too long. A disk that hangs raises no error, so core's readiness has to
show a call that does not return.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SLOW_S: Final = 5.0
"""Longer than an fsync on a working disk, and than SQLite's busy timeout of two seconds."""


class StallDetector:
    """For one caller, which makes one call at a time."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Wrap the watched call in this."""
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
