"""What the worker has measured: times of steps, batches and calls, and what follows from them. No I/O, no clock."""

from worker.engines.contract import BatchKey

_WEIGHT = 0.3
"""Of the newest measurement in the moving average: about the last ten count."""


class Measurements:
    """Moving averages by kind of work, in seconds. Kinds beyond `remembered` push the oldest out."""

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
    """The time between two signs of life of the GPU thread."""
    return ("step", key)
