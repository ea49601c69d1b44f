"""What workers report and the log does not hold: which are alive, which images they hold, and at which step.

Lossy by design: kept in memory, bounded, gone after a restart. A wrong decision based on it,
such as which worker drops a copy of a job, costs a delay until the recheck and nothing else.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.domain.decide import convicted
from core.domain.state import Generation, Phase, Ref
from core.domain.transaction import Change

SEEN_S = 60.0
DEFAULT_BATCH = 8
_MAX_WORKERS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveProgress:
    """Progress of an open generation, for its view. `steps`: steps done, by image index; `revision` grows with them."""

    backlog_position: int = 0
    steps: tuple[int, ...] = ()
    revision: int = 0


NO_PROGRESS = LiveProgress()


@dataclass(frozen=True, slots=True)
class Held:
    """One image that a worker says it holds. `dispatch` is 0 for a worker that does not say which."""

    ref: Ref
    running: bool
    step: int
    dispatch: int = 0


class Dispatching(Protocol):
    """What workers' reports change about dispatch."""

    def postpone(self, ref: Ref) -> None:
        """A worker holds the image: move its recheck to a later time."""

    def dropped(self, ref: Ref) -> None:
        """A worker holds a job of the image, and drops it."""

    def is_sending(self, ref: Ref) -> bool:
        """Whether the image is between being chosen and being recorded as sent."""


@dataclass(slots=True)
class _Steps:
    revision: int = 0
    steps: dict[int, int] = field(default_factory=dict)
    starters: dict[int, tuple[str, float]] = field(default_factory=dict)


class Workers:
    """The workers seen in the last minute, and the largest batch that each has started."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int]] = {}

    def saw(self, worker_id: str, batch_size: int = 0) -> None:
        """Note that the worker is alive, and the size of a batch that it has started (0: unknown)."""
        _, batch = self._seen.pop(worker_id, (0.0, 0))
        if len(self._seen) < _MAX_WORKERS:
            self._seen[worker_id] = (asyncio.get_running_loop().time(), max(batch, batch_size))

    def ids(self) -> Sequence[str]:
        """Those seen in the last minute."""
        self._forget()
        return list(self._seen)

    def batch_sizes(self) -> Sequence[int]:
        """The largest batch of each worker seen in the last minute; `DEFAULT_BATCH` where none is known."""
        self._forget()
        return [batch or DEFAULT_BATCH for _, batch in self._seen.values()]

    def _forget(self) -> None:
        oldest = asyncio.get_running_loop().time() - SEEN_S
        while self._seen and (first := next(iter(self._seen))) and self._seen[first][0] < oldest:
            del self._seen[first]


class Progress:
    """Counts steps for the views, and decides which of its jobs a worker keeps. `states`: the open generations."""

    def __init__(self, states: Mapping[str, Generation], workers: Workers, *, visibility_s: float) -> None:
        self._states = states
        self._workers = workers
        self._visibility_s = visibility_s
        self._known: dict[str, _Steps] = {}

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Drop the progress of ended generations and of images that are no longer in phase STARTED."""
        for before, after in changes:
            known = self._known.get(after.id)
            if known is None:
                continue
            if not after.open:
                del self._known[after.id]
                continue
            for image in after.images:
                if image.phase is not Phase.STARTED and (before is None or before.images[image.index] is not image):
                    known.starters.pop(image.index, None)
                    known.steps.pop(image.index, None)

    def started(self, ref: Ref, worker_id: str, batch_size: int) -> None:
        """Note the worker whose `started` reply was recorded in the log: it is the image's *starter*."""
        self._workers.saw(worker_id, batch_size)
        if ref[0] in self._states:
            now = asyncio.get_running_loop().time()
            self._known.setdefault(ref[0], _Steps()).starters[ref[1]] = (worker_id, now)

    def report(self, worker_id: str, held: Sequence[Held], dispatching: Dispatching) -> list[bool]:
        """For each held image, in order, whether the worker keeps it. `dispatching` is called for each."""
        self._workers.saw(worker_id)
        wanted = []
        for each in held:
            keep = self._wanted(each, worker_id, dispatching)
            wanted.append(keep)
            if keep:
                self._note_step(each)
                dispatching.postpone(each.ref)
            else:
                dispatching.dropped(each.ref)
        return wanted

    def live(self, state: Generation, position: int) -> LiveProgress:
        """The progress of an open generation; `position` is its place in the backlog."""
        known = self._known.get(state.id)
        if known is None:
            return LiveProgress(backlog_position=position)
        steps = tuple(known.steps.get(index, 0) for index in range(len(state.images)))
        return LiveProgress(backlog_position=position, steps=steps, revision=known.revision)

    def _wanted(self, held: Held, worker_id: str, dispatching: Dispatching) -> bool:
        """Whether the worker keeps the job. False when the generation has ended or the image is decided, and for a
        waiting copy of an image that another worker has started, with no result or new dispatch recorded since.

        That worker may be dead, and the image may have killed it. So no copy may run in a batch with other images: at
        its recheck, core dispatches the image again to run alone. After its last permitted solo start a waiting job
        is kept only on the worker that started it, and only for half a visibility timeout. (A worker runs a solo image
        at once. What still waits later is a redelivered copy, even on that worker after a restart.)

        A dispatch is sent before it is recorded. Until then the image looks as it did before: started by a worker
        that may be dead. So a dispatch newer than the recorded one is wanted, and from a worker that does not say
        which one it holds, any copy of an image that is being sent now. Otherwise the worker that the job was sent to
        would delete it, and the image would wait for its next recheck.
        """
        state = self._states.get(held.ref[0])
        if state is None or not held.ref[1] < len(state.images) or state.images[held.ref[1]].decided:
            return False
        image, known = state.images[held.ref[1]], self._known.get(state.id)
        starter, at_s = (known.starters.get(held.ref[1]) if known else None) or ("", 0.0)
        if held.running:
            return True
        if convicted(image):
            fresh = asyncio.get_running_loop().time() - at_s < self._visibility_s / 2
            return starter == worker_id and fresh
        on_its_way = held.dispatch > image.dispatches or (not held.dispatch and dispatching.is_sending(held.ref))
        return on_its_way or starter in {"", worker_id}

    def _note_step(self, held: Held) -> None:
        known = self._known.setdefault(held.ref[0], _Steps())
        if held.running and known.steps.get(held.ref[1], 0) != held.step:
            known.steps[held.ref[1]] = held.step
            known.revision += 1
