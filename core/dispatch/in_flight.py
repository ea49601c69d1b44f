"""The images in flight, on the queue or with a worker: how many, how many there should be, and when to recheck each.

Pure; part of the image book. Pending images that are held back are here too, until their pause is over. A recheck
time here may be later than the one in the log, because workers' reports move it in memory. It is never earlier:
`decide` would refuse the dispatch.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final

from core.domain.state import Ref

_SLACK: Final = 64
_LEAST: Final = 16
_MOST: Final = 64
_WORK_S: Final = 30.0
"""GPU seconds of work on the queue per worker. Above it, only the least number of images is kept there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueTarget:
    """How much may be on the queue: `least` images whatever they cost, and `most` while they cost less than `work_s`.

    What is on the queue runs before everything that waits in the backlog, so it is bounded in time too: a few dozen
    of the largest images would keep a new tenant waiting for an hour. The least keeps every GPU busy.
    """

    least: int
    most: int
    work_s: float = math.inf

    def room(self, images: int, work_s: float, pending: int, batch: int) -> tuple[int, int, float]:
        """How many more images may be sent at most, how many at least, and of how many GPU seconds. `images` of
        `work_s` GPU seconds are on the queue, and `pending` wait.

        A full `batch` must fit, within `least` or with a quarter of `self.work_s` to spare; otherwise (0, 0, 0.0). So
        sends are few and full.
        """
        most, least, spare_s = self.most - images, self.least - images, self.work_s - work_s
        if most <= 0 or most < min(batch, pending, self.most):
            return 0, 0, 0.0
        if least < min(batch, pending, self.least) and spare_s < self.work_s / 4:
            return 0, 0, 0.0
        return most, least, spare_s


def queue_target(batches: Sequence[int], paced: int) -> QueueTarget:
    """The target for workers of these batch sizes; `paced`: images sent in the time of a slow round."""
    least = max(_LEAST, 2 * sum(batches), paced)
    return QueueTarget(least=least, most=max(_MOST, least), work_s=_WORK_S * max(1, len(batches)))


class _Out:
    __slots__ = ("on_queue", "recheck_ms", "work_s")

    def __init__(self, recheck_ms: int, work_s: float, *, on_queue: bool) -> None:
        self.recheck_ms = recheck_ms
        self.work_s = work_s
        self.on_queue = on_queue


class InFlight:
    """Times are core's running time."""

    def __init__(self) -> None:
        self._out: dict[Ref, _Out] = {}
        self._heap: list[tuple[int, Ref]] = []
        self.on_queue = 0
        self._work_s = 0.0
        self._unwanted: dict[Ref, int] = {}

    def __len__(self) -> int:
        return len(self._out)

    @property
    def work_s(self) -> float:
        """GPU seconds of what is on the queue."""
        return self._work_s if self.on_queue else 0.0

    def put(self, ref: Ref, recheck_ms: int, *, on_queue: bool, work_s: float = 0.0) -> None:
        """Add or replace an image, due at `recheck_ms`. `on_queue`: not started, with `work_s` GPU seconds to do."""
        self.drop(ref)
        self._out[ref] = _Out(recheck_ms, work_s, on_queue=on_queue)
        if on_queue:
            self._work_s = self.work_s + work_s  # restarts at 0 on an empty queue, so rounding errors do not add up
            self.on_queue += 1
        self._push(recheck_ms, ref)

    def drop(self, ref: Ref) -> None:
        """Remove the image, if it is here."""
        out = self._out.pop(ref, None)
        if out is not None and out.on_queue:
            self.on_queue -= 1
            self._work_s -= out.work_s

    def is_on_queue(self, ref: Ref) -> bool:
        """Whether the image is on the queue: dispatched, and not started."""
        out = self._out.get(ref)
        return out is not None and out.on_queue

    def lingers(self, ref: Ref, until_ms: int) -> None:
        """The image's job is on the queue but unwanted: count it there until a worker drops it, or `until_ms`."""
        self._unwanted[ref] = until_ms

    def dropped(self, ref: Ref) -> bool:
        """A worker drops a job of the image; returns whether that was an unwanted one, which makes room."""
        return self._unwanted.pop(ref, None) is not None

    def taken(self, now_ms: int) -> int:
        """Jobs on the queue, the unwanted included."""
        while self._unwanted and (first := next(iter(self._unwanted))) and self._unwanted[first] <= now_ms:
            del self._unwanted[first]
        return self.on_queue + len(self._unwanted)

    def postpone(self, ref: Ref, recheck_ms: int) -> None:
        """A worker holds the image: recheck it at `recheck_ms`, or at its present time if that is later."""
        out = self._out.get(ref)
        if out is not None and recheck_ms > out.recheck_ms:
            out.recheck_ms = recheck_ms  # its entry in the heap comes up early, and is put back

    def due(self, now_ms: int, limit: int) -> list[Ref]:
        """Up to `limit` images whose time has come. Each is returned once, until `put` or `again` sets a new time."""
        found: list[Ref] = []
        while len(found) < limit and self._heap and self._heap[0][0] <= now_ms:
            noted, ref = heappop(self._heap)
            out = self._out.get(ref)
            if out is None:
                continue
            if out.recheck_ms > now_ms:
                if noted < out.recheck_ms:
                    self._push(out.recheck_ms, ref)
                continue
            found.append(ref)
        return list(dict.fromkeys(found))

    def next_ms(self) -> int | None:
        """When to call `due` next; None: not before an image is put."""
        return self._heap[0][0] if self._heap else None

    def again(self, ref: Ref, at_ms: int) -> None:
        """An image that was due cannot be sent yet: it is due again at `at_ms`."""
        if ref in self._out:
            self._out[ref].recheck_ms = at_ms
            self._push(at_ms, ref)

    def _push(self, at_ms: int, ref: Ref) -> None:
        if len(self._heap) > 4 * len(self._out) + _SLACK:
            self._heap = [(out.recheck_ms, each) for each, out in self._out.items()]
            heapify(self._heap)
        heappush(self._heap, (at_ms, ref))


class FlowControl:
    """How much should be on the queue: `fixed` images; with 0, as much as the workers' batch sizes, the dispatch rate
    and the time of a round require. `batches` gives the largest batch of each worker seen lately.
    """

    def __init__(self, batches: Callable[[], Sequence[int]], *, fixed: int = 0) -> None:
        self._batches = batches
        self._fixed = fixed
        self._rounds: deque[tuple[float, float, int]] = deque(maxlen=100)

    def note(self, ended_s: float, took_s: float, images: int) -> None:
        """A round of dispatching has ended."""
        self._rounds.append((ended_s, took_s, images))

    def target(self) -> QueueTarget:
        """What should be on the queue now."""
        if self._fixed:
            return QueueTarget(least=self._fixed, most=self._fixed)
        return queue_target(self._batches(), self._sent_in_a_slow_round())

    def _sent_in_a_slow_round(self) -> int:
        """Images sent, at the present rate, in the time of the slowest of the last 100 rounds."""
        if len(self._rounds) < 2:
            return 0
        span_s = max(self._rounds[-1][0] - self._rounds[0][0], 0.001)
        rate = sum(images for _, _, images in self._rounds) / span_s
        slowest = sorted(took_s for _, took_s, _ in self._rounds)[int(len(self._rounds) * 0.99)]
        return int(rate * slowest)
