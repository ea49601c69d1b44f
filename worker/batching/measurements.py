"""Averages of what the worker has measured: silences of the GPU thread, announcements, receives. No I/O, no clock."""

from worker.engines.contract import BatchKey

_WEIGHT = 0.3
"""Weight of the newest measurement in the moving average, of which about the last ten count."""


class Measurements:
    """Moving averages by kind of work, in seconds. Beyond `remembered` kinds, the longest unobserved is forgotten."""

    def __init__(self, *, remembered: int = 1_000) -> None:
        self._seconds: dict[tuple[object, ...], float] = {}
        self._remembered = remembered

    def observe(self, kind: tuple[object, ...], seconds: float) -> None:
        """One more measurement."""
        known = self._seconds.pop(kind, None)
        self._seconds[kind] = seconds if known is None else known + _WEIGHT * (seconds - known)
        if len(self._seconds) > self._remembered:
            del self._seconds[next(iter(self._seconds))]

    def seconds(self, kind: tuple[object, ...]) -> float | None:
        """The average; None when nothing is known."""
        return self._seconds.get(kind)


def step_kind(key: BatchKey) -> tuple[object, ...]:
    """The kind under which the watchdog learns how long the GPU thread is silent in work on this batch key."""
    return ("step", key)
