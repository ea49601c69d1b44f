"""Where the GPU's seconds went: each belongs to one cause, timed on its own and not as what the others left over.

The GPU loop tells it, on the event loop's thread; all times are the worker's clock, which is passed in. An idle time's
cause is known only at its end: what was admitted then had been somewhere since some moment, and from that moment on
the GPU waited for work that existed. Until then the idle time is *open*. Nothing is counted twice: what is told of a
time that has its cause already is left out and summed in `overlapping_s`. What nobody told of is unattributed.
"""

from collections import deque
from collections.abc import Mapping
from enum import StrEnum

SETTLE_S = 30.0
"""How long an image may take from its acceptance into the jobs queue and still be counted as work that existed."""
GAPS = 64
"""Untold spans that are remembered, for what is told late; the oldest stay unattributed."""


class Cause(StrEnum):
    """What the GPU did, or what it waited for."""

    RENDERING = "rendering"
    DECODING = "decoding"
    BETWEEN_STEPS = "between_steps"
    """The GPU's thread itself: choosing who goes next, telling of it, waiting for the interpreter."""
    NO_WORK = "no_work"
    """There was no image anywhere."""
    NOT_HERE = "work_not_here"
    """There was one, but it had not reached the GPU: in the queue, being received, or being announced."""
    BACKPRESSURE = "backpressure"
    """The line behind the GPU was full, or so much was to be answered and deleted that nothing was received."""
    LOADING = "loading"
    RESTARTING = "restarting"


class TimeLedger:
    """Sums by cause since `began_s`."""

    def __init__(self, began_s: float) -> None:
        self._began_s = began_s
        self._told = _Told(began_s)
        self._seconds = dict.fromkeys(Cause, 0.0)
        self._idle_since_s: float | None = None
        self.overlapping_s = 0.0

    def spend(self, cause: Cause, began_s: float, ended_s: float) -> None:
        """The GPU did this from then to then."""
        if ended_s <= began_s:
            return
        new_s = self._told.add(began_s, ended_s)
        self._seconds[cause] += new_s
        self.overlapping_s += max(0.0, ended_s - began_s - new_s)

    def idle_began(self, now_s: float) -> None:
        """The GPU has nothing to do from now on. Once it is idle, this changes nothing."""
        if self._idle_since_s is None:
            self._idle_since_s = now_s

    def idle_ended(self, now_s: float, *, existed_since_s: float | None) -> None:
        """It has something to do again. `existed_since_s`: when the oldest of the images now admitted came into being,
        wherever that was; None when the idle time ends for another reason, and none of it was anybody's waiting.
        """
        began_s, self._idle_since_s = self._idle_since_s, None
        if began_s is None:
            return
        arrived_s = now_s if existed_since_s is None else min(now_s, max(began_s, existed_since_s))
        self.spend(Cause.NO_WORK, began_s, arrived_s)
        self.spend(Cause.NOT_HERE, arrived_s, now_s)

    def held_back(self, began_s: float, ended_s: float) -> None:
        """From then to then nothing was received because of what is behind the GPU: if that was idle, for this."""
        if self._idle_since_s is not None:
            since_s = max(began_s, self._idle_since_s)
            self.idle_ended(since_s, existed_since_s=None)
            self.spend(Cause.BACKPRESSURE, since_s, ended_s)
            self.idle_began(ended_s)

    def settle(self, now_s: float, *, existed_since_s: float | None = None) -> None:
        """The queue has just said that it holds nothing: idle time older than SETTLE_S was without work, up to
        `existed_since_s`, when the oldest image that is here and has yet to be admitted came into being. While the
        queue does not answer nobody knows, and the idle time stays open.
        """
        settled_s = now_s - SETTLE_S
        if self._idle_since_s is not None and self._idle_since_s < settled_s:
            self.idle_ended(settled_s, existed_since_s=existed_since_s)
            self.idle_began(settled_s)

    def seconds(self) -> Mapping[Cause, float]:
        """So far, open idle time not included. None of them ever shrinks."""
        return dict(self._seconds)

    def open_idle_s(self, now_s: float) -> float:
        """Idle time whose cause is not known yet."""
        return 0.0 if self._idle_since_s is None else self._told.untold_s(self._idle_since_s, now_s)

    def unattributed_s(self, now_s: float) -> float:
        """The time since the beginning that nobody told of."""
        known_s = sum(self._seconds.values()) + self.open_idle_s(now_s)
        return max(0.0, now_s - self._began_s - known_s)


class _Told:
    """Which spans of time have their cause: all from the beginning to `_end_s`, but for the gaps, in order."""

    def __init__(self, began_s: float) -> None:
        self._end_s = began_s
        self._gaps: deque[tuple[float, float]] = deque(maxlen=GAPS)

    def add(self, began_s: float, ended_s: float) -> float:
        """The seconds of this span that had no cause until now."""
        new_s = self.untold_s(began_s, ended_s)
        if began_s < self._end_s:
            self._fill(began_s, ended_s)
        elif began_s > self._end_s:
            self._gaps.append((self._end_s, began_s))
        self._end_s = max(self._end_s, ended_s)
        return new_s

    def untold_s(self, began_s: float, ended_s: float) -> float:
        """The seconds of this span that have no cause."""
        after_s = max(0.0, ended_s - max(began_s, self._end_s))
        if began_s >= self._end_s:
            return after_s
        return after_s + sum(max(0.0, min(ended_s, end) - max(began_s, start)) for start, end in self._gaps)

    def _fill(self, began_s: float, ended_s: float) -> None:
        """Leave of each gap what lies before and behind the span."""
        left = [
            piece
            for start, end in self._gaps
            for piece in ((start, min(end, began_s)), (max(start, ended_s), end))
            if piece[0] < piece[1]
        ]
        self._gaps = deque(left, maxlen=GAPS)
