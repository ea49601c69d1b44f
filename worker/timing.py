"""What the worker has measured: times of steps, batches and calls, and what follows from them. No I/O, no clock."""

import math

from worker.engines.contract import BatchKey, RenderJob

_WEIGHT = 0.3
"""Of the newest measurement in the moving average: about the last ten count."""


class Measured:
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


class Caps:
    """The largest batch: what the engine declares, until memory taught otherwise. Any thread may ask.

    What the engine measured counts per batch key; a batch that ran out of memory, per (model, width, height).
    """

    def __init__(self, *, remembered: int = 1_000) -> None:
        self._ran_out: dict[tuple[str, int, int], int] = {}
        self._fits: dict[BatchKey, int] = {}
        self._remembered = remembered

    def limit(self, job: RenderJob, key: BatchKey, declared: int) -> int:
        """Images that may go together."""
        return min(declared, self._fits.get(key, declared), self._ran_out.get(_size(job), declared))

    def measured(self, key: BatchKey, fits: int) -> None:
        """So many images fit into memory, as far as the engine has seen. The newest word counts."""
        self._fits[key] = max(1, fits)  # in place: the GPU thread may be asking
        if len(self._fits) > self._remembered:
            del self._fits[next(iter(self._fits))]

    def ran_out(self, job: RenderJob, size: int) -> None:
        """A batch of `size` did not fit: half of it is the cap from now on."""
        kind = _size(job)
        self._ran_out[kind] = max(1, min(size // 2, self._ran_out.get(kind, size)))


def _size(job: RenderJob) -> tuple[str, int, int]:
    return (job.model, job.width, job.height)


def step_kind(key: BatchKey) -> tuple[object, ...]:
    """The time between two signs of life of the GPU thread."""
    return ("step", key)


def ahead(*, batch: int, batch_s: float | None, receive_s: float, limit: int) -> int:
    """Images to hold in waiting: two batches, and what the GPU takes while two receives are under way."""
    meanwhile = 0 if not batch_s else math.ceil(2 * receive_s / batch_s * batch)
    return max(1, min(limit, 2 * batch + meanwhile))


def hang_deadline_s(*, floor_s: float, learned_s: float | None) -> float:
    """Seconds without a step after which the engine counts as hung; four floors while nothing is learned."""
    return 4 * floor_s if learned_s is None else max(floor_s, 10 * learned_s)


class Waits:
    """When the GPU last ended doing something else than rendering for those who waited meanwhile."""

    def __init__(self) -> None:
        self.loading_until_s = -math.inf
        self.backpressure_until_s = -math.inf
        self.batch_until_s = -math.inf

    def reason(self, received_s: float) -> str:
        """Why an image received then and admitted now had to wait; empty when nothing was in its way."""
        if self.loading_until_s > received_s:
            return "loading"
        if self.backpressure_until_s > received_s:
            return "backpressure"
        return "batch_running" if self.batch_until_s > received_s else ""
