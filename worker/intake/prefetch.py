"""How many more messages to prefetch: about two batches ahead of the GPU, from measured times."""

import math

from worker.batching.learned import Learned
from worker.gpu.models.model_pool import ModelPool
from worker.holding.window import Window

RECEIVE_KIND = ("receive",)


class Prefetch:
    """Asked by the receiver before every poll. `limit` and `behind` in images."""

    def __init__(
        self,
        window: Window,
        models: ModelPool,
        learned: Learned,
        *,
        limit: int,
        behind: int,
        at_once: int | None,
    ) -> None:
        self._window = window
        self._models = models
        self._learned = learned
        self._limit = limit
        self._behind = behind
        self._at_once = at_once

    @property
    def full(self) -> bool:
        """Whether too many images are behind the GPU: replies or deletions do not keep up, or are refused."""
        return self._window.behind_count() >= self._behind

    def room(self) -> int:
        """Images to receive now; none if zero or less. At most `limit` images wait in all. Nothing is received before
        the first attempt to load the default model has ended, nor while `behind` images are behind the GPU.

        A load may take minutes, or hang: jobs received meanwhile would be hidden from workers that are free. With
        `at_once`, for the loops without overlap, at most that many are received, and then none until all are deleted.
        """
        if self._models.waiting or self.full:
            return 0
        first = next(iter(self._window.waiting()), None)
        batch = self._models.largest_batch() if first is None else self._models.limit(first.job.render, first.key)
        if self._at_once is not None:
            return 0 if self._window.held() else min(self._at_once, batch)
        batch_s = None
        if first is not None and self._learned.step_times.known(first.key):
            batch_s = first.job.render.num_inference_steps * self._learned.step_times.step_s(first.key)(batch)
        receive_s = self._learned.measurements.seconds(RECEIVE_KIND) or 0.0
        target = ahead(batch=batch, batch_s=batch_s, receive_s=receive_s, limit=self._limit)
        return target - self._window.waiting_count()

    def received(self, receive_s: float) -> None:
        """Record the seconds of a receive that came back full, which did not wait for messages."""
        self._learned.measurements.observe(RECEIVE_KIND, receive_s)


def ahead(*, batch: int, batch_s: float | None, receive_s: float, limit: int) -> int:
    """Images that should wait: two batches, and what the GPU takes during two receives."""
    meanwhile = 0 if not batch_s else math.ceil(2 * receive_s / batch_s * batch)
    return max(1, min(limit, 2 * batch + meanwhile))
