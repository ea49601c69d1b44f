"""An engine that times another one, on the thread that calls it: the GPU thread's own account of a run."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from worker.engines.contract import (
    BatchKey,
    Capabilities,
    Done,
    EncodedPicture,
    Engine,
    EngineFacts,
    Picture,
    RenderJob,
    Report,
    Stepped,
)

Span = Callable[[str, Sequence[str], float, float], None]
"""Hears of each call: its name, the jobs it was for, and when it began and ended, in `time.monotonic()` seconds."""


class TimedEngine:
    """Delegates to `engine`. All figures cover the time from the first `admit` to the end of the last timed call.

    `seats` sums the batch sizes of all steps; `most` is the largest number of jobs held at once, parked ones included.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running: dict[str, None] = {}
        self._parked: set[str] = set()
        self.on_span: Span = lambda *_: None
        self.first_s: float | None = None
        self.last_s = 0.0
        self.busy_s = 0.0
        self.images = 0
        self.steps = 0
        self.seats = 0
        self.most = 0

    @property
    def seconds(self) -> float:
        """From the first admission to the last finish."""
        return 0.0 if self.first_s is None else self.last_s - self.first_s

    @property
    def idle_pct(self) -> float:
        """Percentage of `seconds` in which no timed call ran."""
        return 100 * (1 - self.busy_s / self.seconds) if self.seconds else 0.0

    @property
    def images_per_s(self) -> float:
        """Decoded pictures a second of that time."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def mean_batch(self) -> float:
        """Images that took part in a step, on average."""
        return self.seats / self.steps if self.steps else 0.0

    @property
    def capabilities(self) -> Capabilities:
        """The wrapped engine's capabilities."""
        return self._engine.capabilities

    @property
    def facts(self) -> EngineFacts:
        """The wrapped engine's facts."""
        return self._engine.facts

    @property
    def loaded(self) -> bool:
        """Whether the wrapped engine is loaded."""
        return self._engine.loaded

    def key(self, job: RenderJob) -> BatchKey:
        """Not timed: no work of the GPU."""
        return self._engine.key(job)

    def load(self) -> None:
        """Not timed: before the first admission."""
        self._engine.load()

    def unload(self) -> None:
        """Not timed."""
        self._engine.unload()

    def admit(self, jobs: Sequence[RenderJob]) -> None:
        """Timed."""
        ids = [job.id for job in jobs]
        with self._timed("admit", ids):
            self._engine.admit(jobs)
        self._running.update(dict.fromkeys(ids))
        self.most = max(self.most, len(self._running))

    def step(self, report: Report) -> Stepped:
        """Timed."""
        ids = [job_id for job_id in self._running if job_id not in self._parked]
        with self._timed("step", ids):
            stepped = self._engine.step(report)
        self.steps += 1
        self.seats += len(ids)
        for job_id in (*(done.job_id for done in stepped.finished), *stepped.evicted):
            self._running.pop(job_id, None)
            self._parked.discard(job_id)
        return stepped

    def evict(self, job_id: str) -> None:
        """Any thread; not timed."""
        self._engine.evict(job_id)

    def park(self, job_id: str) -> None:
        """Timed."""
        with self._timed("park", [job_id]):
            self._engine.park(job_id)
        self._parked.add(job_id)

    def unpark(self, job_id: str) -> None:
        """Timed."""
        with self._timed("unpark", [job_id]):
            self._engine.unpark(job_id)
        self._parked.discard(job_id)

    def decode(self, done: Done) -> Picture | EncodedPicture:
        """Timed."""
        with self._timed("decode", [done.job_id]):
            picture = self._engine.decode(done)
        self.images += 1
        return picture

    def reset(self) -> None:
        """Not timed."""
        self._running.clear()
        self._parked.clear()
        self._engine.reset()

    def kill(self) -> None:
        """Any thread; not timed."""
        self._engine.kill()

    @contextmanager
    def _timed(self, name: str, ids: Sequence[str]) -> Iterator[None]:
        began_s = time.monotonic()
        if self.first_s is None:
            self.first_s = began_s
        try:
            yield
        finally:
            self.last_s = time.monotonic()
            self.busy_s += self.last_s - began_s
            self.on_span(name, ids, began_s, self.last_s)
