"""Where the GPU's seconds went: each belongs to one cause, and each cause is measured, none computed as a remainder.

The GPU loop reports spans, on the event loop's thread; all times are the worker's clock, which is passed in. The cause
of idle time is known only at its end: until the image then admitted was requested, there was no work; after that, the
GPU waited for work that existed. Until then the idle time is *open*. Nothing is counted twice: where a span already has
a cause, a second report is ignored and summed in `overlapping_s`. A span without any report is unattributed.
"""

from collections import deque
from collections.abc import Mapping
from enum import StrEnum

SETTLE_S = 30.0
"""Seconds of idle time that stay open after an empty receive, since an image accepted into the jobs queue within them
may still be on its way.
"""
GAPS = 64
"""Spans without a report that are remembered for late reports; older ones stay unattributed."""


class Cause(StrEnum):
    """What the GPU did, or what it waited for."""

    RENDERING = "rendering"
    DECODING = "decoding"
    BETWEEN_STEPS = "between_steps"
    """The GPU thread itself: choosing the next images, reporting, waiting for the interpreter lock."""
    NO_WORK = "no_work"
    """No image existed."""
    NOT_HERE = "work_not_here"
    """An image existed and had not reached the GPU: in the queue, being received, or being announced."""
    BACKPRESSURE = "backpressure"
    """The delivery behind the GPU was full, or so many images were to be answered or deleted that
    nothing was received.
    """
    LOADING = "loading"
    RESTARTING = "restarting"


class TimeLedger:
    """Sums by cause since `began_s`."""

    def __init__(self, began_s: float) -> None:
        self._began_s = began_s
        self._reported = _Reported(began_s)
        self._seconds = dict.fromkeys(Cause, 0.0)
        self._idle_since_s: float | None = None
        self.overlapping_s = 0.0

    def spend(self, cause: Cause, began_s: float, ended_s: float) -> None:
        """The GPU did this in the span."""
        if ended_s <= began_s:
            return
        new_s = self._reported.add(began_s, ended_s)
        self._seconds[cause] += new_s
        self.overlapping_s += max(0.0, ended_s - began_s - new_s)

    def idle_began(self, now_s: float) -> None:
        """The GPU has no work from now on. Changes nothing while it is idle already."""
        if self._idle_since_s is None:
            self._idle_since_s = now_s

    def idle_ended(self, now_s: float, *, existed_since_s: float | None) -> None:
        """The GPU has work again. `existed_since_s`: when the oldest of the images that are now admitted was requested;
        None when the idle time ends for another reason, and no image waited in it.
        """
        began_s, self._idle_since_s = self._idle_since_s, None
        if began_s is None:
            return
        arrived_s = now_s if existed_since_s is None else min(now_s, max(began_s, existed_since_s))
        self.spend(Cause.NO_WORK, began_s, arrived_s)
        self.spend(Cause.NOT_HERE, arrived_s, now_s)

    def held_back(self, began_s: float, ended_s: float) -> None:
        """Nothing was received in this span because too many images are behind the GPU. If the GPU is idle, book its
        idle time in the span as backpressure.
        """
        if self._idle_since_s is not None:
            since_s = max(began_s, self._idle_since_s)
            self.idle_ended(since_s, existed_since_s=None)
            self.spend(Cause.BACKPRESSURE, since_s, ended_s)
            self.idle_began(ended_s)

    def settle(self, now_s: float, *, existed_since_s: float | None = None) -> None:
        """The jobs queue has just returned no message: book idle time older than SETTLE_S as NO_WORK up to
        `existed_since_s`, when the oldest image that is held and not admitted was requested, and as NOT_HERE after it.
        While receives fail, the cause is unknown and the idle time stays open.
        """
        settled_s = now_s - SETTLE_S
        if self._idle_since_s is not None and self._idle_since_s < settled_s:
            self.idle_ended(settled_s, existed_since_s=existed_since_s)
            self.idle_began(settled_s)

    def seconds(self) -> Mapping[Cause, float]:
        """Seconds by cause so far, without open idle time. They never decrease."""
        return dict(self._seconds)

    def open_idle_s(self, now_s: float) -> float:
        """Idle time whose cause is not known yet."""
        return 0.0 if self._idle_since_s is None else self._reported.unreported_s(self._idle_since_s, now_s)

    def unattributed_s(self, now_s: float) -> float:
        """The time since the beginning without a report."""
        known_s = sum(self._seconds.values()) + self.open_idle_s(now_s)
        return max(0.0, now_s - self._began_s - known_s)


class _Reported:
    """Which spans of time have a cause: all from the beginning to `_end_s`, except for the gaps, in order."""

    def __init__(self, began_s: float) -> None:
        self._end_s = began_s
        self._gaps: deque[tuple[float, float]] = deque(maxlen=GAPS)

    def add(self, began_s: float, ended_s: float) -> float:
        """The seconds of this span that had no cause until now."""
        new_s = self.unreported_s(began_s, ended_s)
        if began_s < self._end_s:
            self._fill(began_s, ended_s)
        elif began_s > self._end_s:
            self._gaps.append((self._end_s, began_s))
        self._end_s = max(self._end_s, ended_s)
        return new_s

    def unreported_s(self, began_s: float, ended_s: float) -> float:
        """The seconds of this span that have no cause."""
        after_s = max(0.0, ended_s - max(began_s, self._end_s))
        if began_s >= self._end_s:
            return after_s
        return after_s + sum(max(0.0, min(ended_s, end) - max(began_s, start)) for start, end in self._gaps)

    def _fill(self, began_s: float, ended_s: float) -> None:
        """Keeps of each gap what lies before and after the span."""
        left = [
            piece
            for start, end in self._gaps
            for piece in ((start, min(end, began_s)), (max(start, ended_s), end))
            if piece[0] < piece[1]
        ]
        self._gaps = deque(left, maxlen=GAPS)
