"""The images in flight, on the queue or with a worker: how many, how many there should be, and when to recheck each.

Pure; part of the image book. A recheck time here may be later than the stored one, because reports of
workers move it in memory; never earlier, or `decide` would refuse the dispatch.
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
"""Of GPU time on the queue per worker, beyond which only the least is kept there."""


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
        """How many more at most, at least, and of how much work, where `images` of `work_s` are out and `pending` wait.

        (0, 0, 0.0) unless there is room for a full batch, which is worth waiting for.
        """
        most, least, spare_s = self.most - images, self.least - images, self.work_s - work_s
        if most <= 0 or most < min(batch, pending, self.most):
            return 0, 0, 0.0
        if least < min(batch, pending, self.least) and spare_s < self.work_s / 4:
            return 0, 0, 0.0
        return most, least, spare_s


def queue_target(batches: Sequence[int], paced: int) -> QueueTarget:
    """For workers of these batch sizes, when `paced` images go out during a slow round."""
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
        """The image is out until `recheck_ms` at least; `on_queue`: not started yet, and takes `work_s`."""
        self.drop(ref)
        self._out[ref] = _Out(recheck_ms, work_s, on_queue=on_queue)
        if on_queue:
            self._work_s = self.work_s + work_s  # from 0 when none was: rounding does not add up
            self.on_queue += 1
        self._push(recheck_ms, ref)

    def drop(self, ref: Ref) -> None:
        """The image is not out any more."""
        out = self._out.pop(ref, None)
        if out is not None and out.on_queue:
            self.on_queue -= 1
            self._work_s -= out.work_s

    def is_on_queue(self, ref: Ref) -> bool:
        """Whether it is out, and not started."""
        out = self._out.get(ref)
        return out is not None and out.on_queue

    def lingers(self, ref: Ref, until_ms: int) -> None:
        """Its job is on the queue and unwanted: it counts there until a worker drops it, or until then."""
        self._unwanted[ref] = until_ms

    def dropped(self, ref: Ref) -> bool:
        """A worker drops the unwanted job; whether that makes room."""
        return self._unwanted.pop(ref, None) is not None

    def taken(self, now_ms: int) -> int:
        """Jobs on the queue, the unwanted included."""
        while self._unwanted and (first := next(iter(self._unwanted))) and self._unwanted[first] <= now_ms:
            del self._unwanted[first]
        return self.on_queue + len(self._unwanted)

    def postpone(self, ref: Ref, recheck_ms: int) -> None:
        """A worker has it: look again at `recheck_ms`, or later if that was planned."""
        out = self._out.get(ref)
        if out is not None and recheck_ms > out.recheck_ms:
            out.recheck_ms = recheck_ms  # its entry in the heap comes up early, and is put back

    def due(self, now_ms: int, limit: int) -> list[Ref]:
        """Up to `limit` images whose time has come, each handed out once until it is `put` again."""
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
        """When to ask for the due ones again; None: when something is put."""
        return self._heap[0][0] if self._heap else None

    def again(self, ref: Ref, at_ms: int) -> None:
        """What was due could not be sent: it is due again at `at_ms`."""
        if ref in self._out:
            self._out[ref].recheck_ms = at_ms
            self._push(at_ms, ref)

    def _push(self, at_ms: int, ref: Ref) -> None:
        if len(self._heap) > 4 * len(self._out) + _SLACK:
            self._heap = [(out.recheck_ms, each) for each, out in self._out.items()]
            heapify(self._heap)
        heappush(self._heap, (at_ms, ref))


class FlowControl:
    """How much should be on the queue: `fixed` images, or with 0 what workers, dispatch rate and round time ask for.

    `batches` gives the largest batch of each worker that was heard of lately.
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
        """Images that go out at the present rate during the slowest round (99 of 100 are faster)."""
        if len(self._rounds) < 2:
            return 0
        span_s = max(self._rounds[-1][0] - self._rounds[0][0], 0.001)
        rate = sum(images for _, _, images in self._rounds) / span_s
        slowest = sorted(took_s for _, took_s, _ in self._rounds)[int(len(self._rounds) * 0.99)]
        return int(rate * slowest)
