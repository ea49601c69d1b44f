"""The dispatcher's book: which images wait, are being sent or are in flight, and when to recheck each. Pure.

Everything here follows from the states of open generations, so a restart rebuilds it from what the writer announces.
Callers pass core's running time. Only the dispatcher changes the book.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from core.dispatch.in_flight import InFlight, QueueTarget
from core.domain.decide import convicted, may_dispatch, runs_solo
from core.domain.events import Spec
from core.domain.fair_queue import FairQueue, Pending
from core.domain.recheck import RecheckPolicy
from core.domain.state import Generation, Image, Phase, Ref
from core.domain.transaction import Change

BATCH: Final = 10
"""What SQS takes in one call."""

_AWAY_MS: Final = 30_000
"""How often an image is rechecked while no worker can use its model. Normally `served` ends the wait earlier."""


@dataclass(frozen=True, slots=True)
class Job:
    """One sending of one image. `solo`: it must run in a batch of its own."""

    state: Generation
    image: Image
    solo: bool

    @property
    def ref(self) -> Ref:
        return self.state.id, self.image.index


def batch_key(spec: Spec) -> tuple[object, ...]:
    """What images must share to run in one batch on any engine."""
    return spec.model, spec.width, spec.height, spec.num_inference_steps, spec.guidance_scale, spec.scheduler


class ImageBook:
    """`states` are the open generations; `work_s` estimates the GPU seconds of an image; `away` says whether no worker
    can use a model for now.
    """

    def __init__(
        self,
        states: Mapping[str, Generation],
        backlog: FairQueue,
        recheck: RecheckPolicy,
        *,
        work_s: Callable[[Spec], float],
        away: Callable[[str], bool],
    ) -> None:
        self._states = states
        self._backlog = backlog
        self.recheck = recheck
        self._work_s = work_s
        self._away = away
        self._in_flight = InFlight()
        self._sending: set[Ref] = set()
        self._held_back: dict[Ref, str] = {}
        """The models of pending images that may not go out yet."""
        self._ages: dict[str, int] = {}  # by generation, in the order of their requests: lower is older
        self._age = 0
        self._no_recheck_before_ms = 0

    @property
    def counts(self) -> Mapping[str, int]:
        """Images that wait, are on the queue, and are started. `started` includes pending images that are held back."""
        on_queue = self._in_flight.on_queue
        return {"pending": len(self._backlog), "queued": on_queue, "started": len(self._in_flight) - on_queue}

    @property
    def any_out(self) -> bool:
        """Whether an image is on the queue, with a worker, or held back."""
        return len(self._in_flight) > 0

    @property
    def any_sending(self) -> bool:
        """Whether an image is between being chosen and being recorded as sent."""
        return bool(self._sending)

    @property
    def ahead(self) -> int:
        """Images on the queue or being sent: workers receive these before the next one that is sent."""
        return self._in_flight.on_queue + len(self._sending)

    @property
    def next_due_ms(self) -> int | None:
        """When to call `overdue` next, in running time; None: not before an image is placed."""
        return self._in_flight.next_ms()

    def is_sending(self, ref: Ref) -> bool:
        """Whether the image is between being chosen and being recorded as sent."""
        return ref in self._sending

    def position(self, state: Generation) -> int:
        """Images ahead of the generation's first pending one, plus 1; 0 when none is pending. Approximate."""
        if not state.open:
            return 0
        for image in state.images:
            if image.phase is Phase.PENDING:
                return self._backlog.position((state.id, image.index)) or 1
        return 0

    # What has happened.

    def begin(self, now_ms: int) -> None:
        """Call before loaded generations are announced. Reports to the previous process are lost, and workers need a
        moment to make new ones before their images count as overdue.
        """
        self._no_recheck_before_ms = now_ms + self.recheck.after_load_ms()

    def on_changes(self, changes: Sequence[Change], now_ms: int) -> None:
        """Follow the writer."""
        for before, after in changes:
            if after.open:
                self._ages.setdefault(after.id, self._age)
                self._age += before is None
                for image in after.images:
                    if before is None or image is not before.images[image.index]:
                        self._place(after, image, now_ms)
            else:
                self._ages.pop(after.id, None)
                for image in after.images:
                    if self._in_flight.is_on_queue((after.id, image.index)):
                        self._lingers((after.id, image.index), now_ms)
                    self._forget((after.id, image.index))

    def held_by_worker(self, ref: Ref, now_ms: int) -> None:
        """A worker holds the image: postpone its recheck."""
        self._in_flight.postpone(ref, now_ms + self.recheck.after_report_ms())

    def dropped(self, ref: Ref) -> bool:
        """A worker drops a job of the image. True if it still counted for an ended generation: there is room now."""
        return self._in_flight.dropped(ref)

    def served(self, model: str) -> None:
        """A worker can serve the model from now on: its images are no longer held back."""
        waiting = [ref for ref, held_for in self._held_back.items() if held_for == model]
        for ref in waiting:
            state = self._states.get(ref[0])
            if state is not None and not state.images[ref[1]].refusals:  # counted refusals have a pause of their own
                self._ready(state, state.images[ref[1]])

    # What to do.

    def overdue(self, limit: int, now_ms: int) -> tuple[list[Job], list[Ref]]:
        """Up to `limit` images that are past their recheck: those to send again, and those to give up (out of solo
        starts). Pending ones that were held back join the backlog instead.
        """
        jobs: list[Job] = []
        convicts: list[Ref] = []
        for ref in self._in_flight.due(now_ms, limit):
            state = self._states.get(ref[0])
            image = state.images[ref[1]] if state else None
            if state is None or image is None or image.decided:
                self._in_flight.drop(ref)
            elif convicted(image):
                convicts.append(ref)
            elif self._away(state.spec.model):
                self._in_flight.again(ref, now_ms + _AWAY_MS)
            elif image.phase is Phase.PENDING:
                self._ready(state, image)
            elif may_dispatch(image, now_ms):
                jobs.append(Job(state, image, runs_solo(image, now_ms)))
            else:
                self._in_flight.again(ref, image.recheck_at_running_ms)
        return jobs, convicts

    def choose(self, limit: int, target: QueueTarget, now_ms: int) -> list[Job]:
        """Remove up to `limit` images from the backlog, in fair order, as far as `target` leaves room on the queue."""
        sending_s = sum(self._work_s(state.spec) for ref in self._sending if (state := self._states.get(ref[0])))
        images = self._in_flight.taken(now_ms) + len(self._sending)
        most, least, work_s = target.room(images, self._in_flight.work_s + sending_s, len(self._backlog), BATCH)
        pending = self._backlog.choose(min(limit, most), BATCH, least=least, work_s=work_s)
        chosen = [(self._states[each.ref[0]], each.ref[1]) for each in pending]
        return [Job(state, state.images[index], runs_solo(state.images[index], now_ms)) for state, index in chosen]

    def sending(self, jobs: Sequence[Job]) -> None:
        """Mark images as being sent. Changes that would make one pending meanwhile wait for `sent` or `not_sent`."""
        self._sending.update(job.ref for job in jobs)

    def sent(self, jobs: Sequence[Job], now_ms: int) -> None:
        """The dispatches of these are recorded."""
        self._sending.difference_update(job.ref for job in jobs)
        for job in jobs:
            self.look_again(job.ref, now_ms)
            if job.state.id not in self._states:
                self._lingers(job.ref, now_ms)

    def not_sent(self, jobs: Sequence[Job], now_ms: int) -> None:
        """The queue has not accepted these images: place them again."""
        for job in jobs:
            self._sending.discard(job.ref)
            self.look_again(job.ref, now_ms)

    def look_again(self, ref: Ref, now_ms: int) -> None:
        """Place the image by its present state, which may have changed since it was taken out."""
        state = self._states.get(ref[0])
        if state is not None:
            self._place(state, state.images[ref[1]], now_ms)

    def _place(self, state: Generation, image: Image, now_ms: int) -> None:
        ref = (state.id, image.index)
        if image.decided:
            self._forget(ref)
        elif image.phase is not Phase.PENDING:
            self._backlog.remove(ref)
            due_ms = max(image.recheck_at_running_ms, self._no_recheck_before_ms)
            on_queue = image.phase is Phase.DISPATCHED
            self._in_flight.put(ref, due_ms, on_queue=on_queue, work_s=self._work_s(state.spec))
        elif convicted(image):
            self._in_flight.put(ref, 0, on_queue=False)  # due at once, for the dispatcher to give it up
        elif ref in self._sending:
            pass  # it is placed when it has been sent
        elif pause_ms := self._pause_ms(state, image):
            self._backlog.remove(ref)
            self._in_flight.put(ref, now_ms + pause_ms, on_queue=False)
            self._held_back[ref] = state.spec.model
        else:
            self._ready(state, image)

    def _pause_ms(self, state: Generation, image: Image) -> int:
        """How long a pending image is held back: workers refused it or cannot use its model, or its object was lost
        and the store may still be in trouble. 0: not at all.
        """
        return max(
            self.recheck.after_refusal_ms(image.refusals) if image.refusals else 0,
            self.recheck.after_uncounted_refusal_ms(image.uncounted_refusals) if image.uncounted_refusals else 0,
            self.recheck.after_refusal_ms(len(image.revoked_attempts)) if image.revoked_attempts else 0,
            _AWAY_MS if self._away(state.spec.model) else 0,
        )

    def _ready(self, state: Generation, image: Image) -> None:
        """Move a pending image into the backlog; if it was held back, it no longer is."""
        ref = (state.id, image.index)
        self._held_back.pop(ref, None)
        if image.phase is Phase.PENDING and ref not in self._sending:
            self._in_flight.drop(ref)
            self._backlog.add(self._pending(state, image))

    def _lingers(self, ref: Ref, now_ms: int) -> None:
        """Keep counting the job of an ended generation that is still on the queue. Otherwise a tenant that submits and
        cancels without pause could fill the queue ahead of all others.
        """
        self._in_flight.lingers(ref, now_ms + self.recheck.after_load_ms())

    def _forget(self, ref: Ref) -> None:
        self._held_back.pop(ref, None)
        self._backlog.remove(ref)
        self._in_flight.drop(ref)

    def _pending(self, state: Generation, image: Image) -> Pending:
        ref = (state.id, image.index)
        return Pending(
            ref=ref,
            tenant=state.tenant,
            priority=state.priority,
            age=self._ages.get(state.id, self._age),
            key=ref if image.suspect else batch_key(state.spec),  # a suspect shares its batch with no other image
            work_s=self._work_s(state.spec),
        )
