"""How many images fit into memory, from what batches really took: a straight line through the peaks of the smallest
and the largest batch seen of a size, and room beside it to decode a picture. Knows numbers only.

Steps and decoding are watched apart: the decoder takes as much beside one image as beside eight, and a line through
peaks that are sometimes its own says that images take nothing, or all there is. Its room is added and not compared:
it works on a stream of its own while the steps go on, and torch's allocator keeps what a stream has used for that
stream.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

SPARE: Final = 0.1
"""Part of the room that is not planned with: fragments, and workspaces that a larger batch makes larger. A guess; the
worker halves batches that run out of memory all the same."""


class Probe(Protocol):
    """Memory of the device, in bytes."""

    def reset_peak(self) -> None: ...
    def peak_bytes(self) -> int: ...
    def held_bytes(self) -> int: ...
    def room_bytes(self) -> int: ...


class MemoryCurve:
    """Of one loaded model, made when its weights are in memory. Without a probe nothing is ever known."""

    def __init__(self, probe: Probe | None) -> None:
        self._probe = probe
        self._idle = probe.held_bytes() if probe else 0
        self._room = 0
        self._peaks: dict[Hashable, dict[int, int]] = {}
        self._decoding: dict[Hashable, int] = {}

    @contextmanager
    def step(self, kind: Hashable, batch: int) -> Iterator[None]:
        """Around a step of `batch` images of one kind (size, guidance). A step that raises teaches nothing."""
        if self._probe is None:
            yield
            return
        self._probe.reset_peak()
        yield
        peak = self._probe.peak_bytes()
        known = self._peaks.get(kind, {})
        if peak > known.get(batch, 0):
            self._room = self._probe.room_bytes()
            self._peaks[kind] = {**known, batch: peak}

    @contextmanager
    def decoding(self, kind: Hashable) -> Iterator[None]:
        """Around the decoding of one picture, whatever is held beside it."""
        if self._probe is None:
            yield
            return
        held = self._probe.held_bytes()
        self._probe.reset_peak()
        yield
        took = self._probe.peak_bytes() - held
        if took > self._decoding.get(kind, 0):
            self._room = self._probe.room_bytes()
            self._decoding[kind] = took

    def fits(self, kind: Hashable) -> int | None:
        """The largest batch, at least 1; None before any has run."""
        peaks = self._peaks.get(kind)
        if not peaks:
            return None
        small, large = min(peaks), max(peaks)
        # One batch size seen: all but the weights is taken to grow with the batch, which errs on the safe side.
        each = (peaks[large] - peaks[small]) / (large - small) if large > small else 0.0
        each = each if each > 0 else (peaks[large] - self._idle) / large
        if each <= 0:
            return None
        room = self._room * (1 - SPARE) - self._decoding.get(kind, 0)
        return max(1, int(large + (room - peaks[large]) // each))
