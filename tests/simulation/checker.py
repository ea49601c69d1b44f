"""The invariants, checked as events become durable, as clients look, and once more when all is quiet.

Believes nobody: it folds the log itself, and looks into the buckets from above.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from core.domain import events as e
from core.domain.decide import MAX_SOLO_STARTS
from core.domain.events import TYPES, Failure, Recorded
from core.domain.projection import Rows, project
from core.domain.state import Ending, Generation, Phase, apply, begin, image_seed
from core.runtime.public_note import PREFIX
from schema import fast
from tests.simulation import poison
from tests.simulation.erasure import ErasureRules
from tests.simulation.gpu import DEAD
from tests.simulation.protocol import Rules
from tests.simulation.store import SimBucket
from tests.simulation.world import World
from worker.engines.emulated import NotEmulated, read_emulated

_CLOCK_SLACK_MS = 500  # between core's look at its clock and what it decides then lie reads of the log
_NEVER_BEGUN = frozenset({Failure.UNSUPPORTED, Failure.MODEL_BROKEN, Failure.MODEL_AWAY, Failure.DEAD_LETTERED})
"""Refusals, which are no starts."""

_RANK = {1: 0, 2: 1, 3: 2, 4: 2, 5: 2, 6: 2}
_ENDINGS = (e.GenerationSucceeded, e.GenerationFailed, e.GenerationCancelled, e.GenerationExpired)

Floor = tuple[int, int, bool]


@dataclass(slots=True)
class _Seen:
    """What one client knows of its generation."""

    status: int = 0
    version: int = 0
    cancelled: bool = False
    erased: bool = False
    refused_cancel: bool = False


@dataclass(slots=True)
class Checker:
    """`uptime_ms` tells how long core has run in all, `public` is where pictures must be.

    `asking`: all workers ask core what is wanted.
    """

    world: World
    public: SimBucket
    states: dict[str, Generation] = field(default_factory=dict)
    accepted: dict[str, str] = field(default_factory=dict)  # id -> whose request
    seen: dict[str, _Seen] = field(default_factory=dict)
    troubled: set[str] = field(default_factory=set)  # attempts that a fault may have cost
    drained: set[str] = field(default_factory=set)  # attempts that the worker's own end has cut short
    objects_hit: dict[tuple[str, int], int] = field(default_factory=dict)
    solo: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    up_ms: float = 0.0
    up_since_s: float | None = None
    decided_up_ms: float = 0.0
    stall: tuple[float, float] = (0.0, 0.0)  # the last one's end, and how long it was
    requested_up_ms: dict[str, float] = field(default_factory=dict)
    failed: int = 0
    asking: bool = False
    published: set[tuple[str, int]] = field(default_factory=set)
    erasure: ErasureRules = field(init=False)
    protocol: Rules = field(init=False)

    def __post_init__(self) -> None:
        self.protocol = Rules(self.world, self.states)
        self.erasure = ErasureRules(self.world, self.public)

    def uptime_ms(self) -> float:
        """How long core has run in all its lives."""
        running = 0.0 if self.up_since_s is None else (self.world.loop.time() - self.up_since_s) * 1_000
        return self.up_ms + running

    def thawed(self, stalled_s: float) -> None:
        """Core goes on after a stall, maybe with what it had begun to decide."""
        self.stall = (self.uptime_ms(), stalled_s * 1_000)

    def _stalled_ms(self) -> float:
        ended_up_ms, lasted_ms = self.stall
        return lasted_ms if self.decided_up_ms - ended_up_ms < _CLOCK_SLACK_MS else 0.0

    def appended(self, events: Sequence[Recorded], rows: Sequence[Rows], *, decided_up_ms: float) -> None:
        """A transaction became durable. Core decided it when it had run so long, and may have been stalled since."""
        self.decided_up_ms = decided_up_ms
        if not self.states and not any(key.startswith(PREFIX) for key in self.public.objects):
            self.world.violate("a new log took work before the public bucket told of it")
        for recorded in events:
            self._event(recorded)
        for row in rows:
            state = self.states.get(row.generation.id)
            if state is None or project(state) != row:
                self.world.violate(f"the projection of {row.generation.id} is not what its events say")

    def _event(self, recorded: Recorded) -> None:
        event, stream = recorded.event, recorded.generation_id
        index = getattr(event, "index", None)
        self.world.note(f"log {stream} v{recorded.version} {TYPES[type(event)]} {'' if index is None else index}")
        before = self.states.get(stream)
        if isinstance(event, e.GenerationRequested):
            if before is not None or recorded.version != 1:
                self.world.violate(f"{stream} is requested twice", "double")
            self.states[stream] = begin(stream, event)
            self.requested_up_ms[stream] = self.decided_up_ms - self._stalled_ms()
            self.world.transitions["requested"] += 1
            return
        if before is None or recorded.version != before.version + 1:
            self.world.violate(f"{stream} has a gap before version {recorded.version}")
            return
        if not before.open and not isinstance(event, e.GenerationErased):
            self.world.violate(f"{stream} goes on after its end with {TYPES[type(event)]}", "double")
        if recorded.at_ms < before.latest_at_ms:
            self.world.violate(f"{stream} goes back in time by {before.latest_at_ms - recorded.at_ms} ms")
        self._rules(before, event)
        self.protocol.recorded(stream, event)
        self.erasure.recorded(recorded, decided_up_ms=self.decided_up_ms, stalled_ms=self._stalled_ms())
        self.states[stream] = apply(before, event, recorded.at_ms)
        self._cover(before, self.states[stream], event)

    def _rules(self, before: Generation, event: e.Event) -> None:
        match event:
            case e.ImagePublished():
                if (before.id, event.index) in self.published:
                    self.world.violate(f"{before.id}/{event.index} is published twice", "double")
                self.published.add((before.id, event.index))
                if before.spec.model == DEAD or poison.kind(before.spec.guidance_scale, event.index):
                    self.world.violate(f"{before.id}/{event.index} is published, and nobody can have rendered it")
                self._picture(before, event.index, event.public_key)
            case e.ImageStarted() | e.ImageAttemptFailed() | e.ImageFailed():
                self._attempt(before, event)
            case e.GenerationExpired():
                lived = self.decided_up_ms - self.requested_up_ms[before.id]
                if not before.ttl_s or lived < before.ttl_s * 1_000 - _CLOCK_SLACK_MS:
                    self.world.violate(f"{before.id} expired after {lived / 1000:.1f} of {before.ttl_s} s")
            case _:
                pass

    def _attempt(self, before: Generation, event: e.ImageStarted | e.ImageAttemptFailed | e.ImageFailed) -> None:
        """What may excuse a failure later, and whether this one is excused."""
        ref = (before.id, event.index)
        if isinstance(event, e.ImageFailed):
            self._excuse(before, event)
            return
        if isinstance(event, e.ImageAttemptFailed):
            if event.failure is Failure.DRAINED:
                self.troubled.add(event.attempt_id)
                self.drained.add(event.attempt_id)
            if event.failure is Failure.OBJECT_LOST and not self.objects_hit.get(ref):
                self.world.violate(f"{before.id}/{event.index} has lost an object that no fault touched", "lost")
            if event.failure in _NEVER_BEGUN:
                return
        # The start of an attempt that failed may have been lost, or may still be on its way.
        known = self.solo.setdefault(ref, [])
        if event.solo and event.attempt_id not in known:
            known.append(event.attempt_id)

    def _whole(self, state: Generation, index: int, key: str) -> bool:
        won, stored = state.images[index].rendered, self.public.stored(key)
        return won is not None and stored is not None and stored.sha256 == won.sha256

    def _picture(self, state: Generation, index: int, key: str) -> None:
        won = state.images[index].rendered
        stored, data = self.public.stored(key), self.public.data(key)
        name = f"{state.id}/{index}"
        if won is None or stored is None or data is None:
            self.world.violate(f"{name} is published, and its object is not there", "lost")
        elif stored.sha256 != won.sha256:
            self.world.violate(f"{name} is published with another digest than decided")
        else:
            self._drawn(state, index, data)

    def _drawn(self, state: Generation, index: int, data: bytes) -> None:
        try:
            said = read_emulated(data)
        except NotEmulated as error:
            self.world.violate(f"{state.id}/{index} is no picture: {error}")
            return
        if said != (state.id, index, image_seed(state.spec.seed, index)):
            self.world.violate(f"{state.id}/{index} is published with the picture of {said}")

    def _excuse(self, state: Generation, event: e.ImageFailed) -> None:
        """An image may fail only when faults have really cost all its chances, or when nobody can render it."""
        ref = (state.id, event.index)
        if poison.kind(state.spec.guidance_scale, event.index):
            # Workers that ask core are told when it has been started often enough, unless a fault keeps core
            # from hearing of the starts, or them from asking.
            starts = set(self.solo.get(ref, [])) - self.drained - self.troubled
            excused = not self.asking or len(starts) <= MAX_SOLO_STARTS
        elif event.failure in (Failure.MODEL_BROKEN, Failure.UNSUPPORTED):
            # A worker that asks nobody does not report either: then refusals count.
            excused = state.spec.model == DEAD or not self.asking
        elif event.failure is Failure.OBJECT_LOST:
            excused = self.objects_hit.get(ref, 0) >= 3
        else:
            last = self.solo.get(ref, [])[-3:]
            excused = len(last) == 3 and self.troubled.issuperset(last)
        self.failed += 1
        if not excused:
            self.world.violate(f"{state.id}/{event.index} failed though no fault explains it: {event.detail}")

    def _cover(self, before: Generation, after: Generation, event: e.Event) -> None:
        index: int | None = getattr(event, "index", None)
        if index is not None:
            move = f"{before.images[index].phase.name}>{after.images[index].phase.name}".lower()
            self.world.transitions[f"{TYPES[type(event)]} {move}"] += 1
        elif isinstance(event, e.GenerationErased):
            self.world.transitions[f"generation.erased {event.cause.name.lower()}"] += 1
        elif isinstance(event, _ENDINGS):
            begun = "running" if before.started_at_ms else "queued"
            self.world.transitions[f"{TYPES[type(event)]} {begun}"] += 1

    def accept(self, generation_id: str, whose: str) -> None:
        """A client holds a 202."""
        self.world.note(f"accepted {generation_id} of {whose}")
        if generation_id not in self.states:
            self.world.violate(f"{generation_id} is accepted and not in the log", "lost")
        self.accepted[generation_id] = whose

    def floor(self, generation_id: str) -> "Floor":
        """Status and version that an answer to a question asked now must not go behind, and whether the client has been
        told that it is erased.
        """
        seen = self.seen.setdefault(generation_id, _Seen())
        return seen.status, seen.version, seen.erased

    def look(self, view: fast.GenerationView, floor: "Floor" = (0, 0, False)) -> None:
        """A client sees its generation. `floor`: as it was when the client asked."""
        seen = self.seen.setdefault(view.generation_id, _Seen())
        status, version = int(view.status), int(view.version)
        if status != seen.status:
            self.world.note(f"seen {view.generation_id} status {status} v{version}")
        if floor[0] and _RANK[status] < _RANK[floor[0]]:
            self.world.violate(f"{view.generation_id} went from status {floor[0]} back to {status}")
        if _RANK.get(floor[0]) == 2 and status != floor[0]:
            self.world.violate(f"{view.generation_id} ended as {floor[0]}, then as {status}")
        self.erasure.look(view, told=floor[2])
        if version < floor[1]:
            self.world.violate(f"{view.generation_id} went from version {floor[1]} back to {version}")
        seen.status, seen.version = max((seen.status, seen.version), (status, version), key=lambda each: each[1])

    def answer_cancel(self, generation_id: str, *, cancelled: bool) -> None:
        """A client was told what became of its wish."""
        seen = self.seen.setdefault(generation_id, _Seen())
        seen.cancelled, seen.refused_cancel = seen.cancelled or cancelled, seen.refused_cancel or not cancelled

    def answer_erase(self, generation_id: str, floor: "Floor", *, erased: bool) -> None:
        """A client was told whether it is erased; it had seen `floor` when it asked."""
        state = self.states[generation_id]
        if erased and not state.erased:
            self.world.violate(f"{generation_id}: told that it is erased, and the log does not say so")
        if not erased and _RANK.get(floor[0]) == 2:
            self.world.violate(f"{generation_id}: had ended, and an erasure was refused")
        seen = self.seen.setdefault(generation_id, _Seen())
        seen.erased |= erased

    def told(self, worker: str, generation_id: str, *, wanted: bool) -> bool:
        """Whether a worker has just been told of an end; an open generation's copies may be unwanted for a while."""
        state = self.states.get(generation_id)
        return not wanted and state is not None and not state.open

    def quiet(self) -> bool:
        """Whether everything has ended."""
        return all(not state.open for state in self.states.values())

    def at_the_end(self) -> None:
        """All that must hold once nothing is open."""
        whose: dict[str, str] = {}
        for generation_id, state in self.states.items():
            owner = generation_id.rpartition("-")[0]
            if owner in whose:
                self.world.violate(f"one request has become {whose[owner]} and {generation_id}", "double")
            whose[owner] = generation_id
            for image in state.images:
                if (
                    image.phase is Phase.PUBLISHED
                    and not state.erased
                    and not self._whole(state, image.index, image.public_key)
                ):
                    self.world.violate(f"{state.id}/{image.index} is published, and its object has gone", "lost")
        for generation_id in self.accepted:
            if generation_id not in self.states:
                self.world.violate(f"{generation_id} is accepted and not in the log", "lost")
        for generation_id, seen in self.seen.items():
            ending = self.states[generation_id].ending
            if seen.cancelled and ending is not Ending.CANCELLED:
                self.world.violate(f"{generation_id}: told that it is cancelled, ended as {ending.name}")
            if seen.refused_cancel and not seen.cancelled and ending is Ending.CANCELLED:
                self.world.violate(f"{generation_id}: told that it is too late to cancel, ended as CANCELLED")
