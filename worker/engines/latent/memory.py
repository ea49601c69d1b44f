"""Estimates how many images fit into memory from what batches took: a straight line through the peaks of the smallest
and the largest batch seen of a size, plus room to decode a picture. Knows numbers only.

Steps and decoding are measured separately: the decoder takes as much beside one image as beside eight, so a line
through peaks that are sometimes the decoder's would say that images take nothing, or everything. The decoder's memory
is added to the steps' instead of taking the larger: it runs on a stream of its own while steps go on, and torch's
allocator keeps memory that a stream has used for that stream.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

SPARE: Final = 0.1
"""The share of memory kept free for fragmentation and for workspaces that grow with the batch. A guess; the worker
halves batches that run out of memory all the same."""


class Probe(Protocol):
    """Memory of the device, in bytes."""

    def reset_peak(self) -> None: ...
    def peak_bytes(self) -> int: ...
    def held_bytes(self) -> int: ...
    def room_bytes(self) -> int: ...


class MemoryCurve:
    """The curve of one model, created once its weights are in memory. Without a probe `fits` is always None."""

    def __init__(self, probe: Probe | None) -> None:
        self._probe = probe
        self._idle = probe.held_bytes() if probe else 0
        self._room = 0
        self._peaks: dict[Hashable, dict[int, int]] = {}
        self._decoding: dict[Hashable, int] = {}

    @contextmanager
    def step(self, kind: Hashable, batch: int) -> Iterator[None]:
        """Measures a step of `batch` images of one kind (size, guidance). A step that raises is not counted."""
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
        """Measures what the decoding of one picture takes beyond the memory held before."""
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
        # With one batch size seen, all memory but the weights is assumed to grow with the batch: the safe side.
        each = (peaks[large] - peaks[small]) / (large - small) if large > small else 0.0
        each = each if each > 0 else (peaks[large] - self._idle) / large
        if each <= 0:
            return None
        room = self._room * (1 - SPARE) - self._decoding.get(kind, 0)
        return max(1, int(large + (room - peaks[large]) // each))
