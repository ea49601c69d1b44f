"""Chooses which images to announce next while a session runs, for the overlapped loop. On the event loop; no I/O.

Choices are made as late as the time that announcing takes allows, so that late arrivals get in: an image is announced
to join the running session when the admission policy would seat it by then, and the next session's first group when
the running one is about to end.

**Solo.** Core convicts an image whose solo starts bring no result, so no other image may be able to end the process
while a solo image is unfinished: it is announced only when no other image is in progress on the worker, and no other
image is announced until its reply is accepted. Solo work therefore does not overlap.
"""

import asyncio
from collections.abc import Sequence

from worker.batching.batcher import Candidate, head, next_batch
from worker.batching.learned import Learned
from worker.batching.policy import Seat, next_step
from worker.gpu.announcer import ANNOUNCE_KIND
from worker.gpu.gpu_state import GpuState, left_s, quantum_s, staying
from worker.gpu.models.model_pool import ModelPool
from worker.gpu.sessions.members import Member
from worker.gpu.sessions.session import Session
from worker.holding.types import Held
from worker.holding.window import Window

MIN_LEAD_S = 0.02
MAX_LEAD_S = 2.0


class Lookahead:
    """`choose` is called again after every change of the window."""

    def __init__(self, window: Window, models: ModelPool, state: GpuState, learned: Learned) -> None:
        self._window = window
        self._models = models
        self._state = state
        self._learned = learned

    def choose(self) -> Sequence[Held]:
        """The images to announce now; none most of the time."""
        if self._state.coming is not None:
            return ()
        waiting = candidates(self._window)
        now_s = asyncio.get_running_loop().time()
        self._show_waiting(waiting, now_s)
        first = head(waiting, now_s=now_s)
        if first is None or self._must_wait(solo=first.solo):
            return ()
        session = self._state.session
        if session is None:
            return self._batch(waiting, now_s)
        # The quantum bounds the wait of another key: without it, joining images could keep a session open endlessly.
        if first.solo or (first.key != session.key and now_s - session.began_s >= quantum_s(session, session.key)):
            session.close()
        joining = self._joining(session, waiting, now_s) if session.open else ()
        return joining or self._following(session, waiting, first, now_s)

    def _must_wait(self, *, solo: bool) -> bool:
        """Whether the next image, `solo` or not, must wait for those in progress: a solo image waits for all of them,
        and any image waits for a solo one.
        """
        busy = self._window.busy()
        return bool(busy) and (solo or any(held.job.solo for held in busy))

    def _batch(self, waiting: Sequence[Candidate[Held]], now_s: float) -> Sequence[Held]:
        return next_batch(waiting, step_s=self._learned.step_times.step_s, limit=self._limit, now_s=now_s)

    def _limit(self, held: Held) -> int:
        return self._models.limit(held.job.render, held.key)

    def _joining(self, session: Session, waiting: Sequence[Candidate[Held]], now_s: float) -> Sequence[Held]:
        """Waiting images that the policy would seat beside the members still left once the announcement is through."""
        mates = [each.seat(now_s) for each in waiting if each.key == session.key and not each.solo]
        if not mates or not session.mailbox.roster or session.mailbox.offered:
            return ()
        limit = self._limit(mates[0].item)
        here = staying(session, self._lead_s())
        known = {member.id for member, _ in here}
        chosen = next_step(
            [_seat(member, remaining, now_s) for member, remaining in here] + mates,
            step_s=self._learned.step_times.step_s(session.key),
            limit=limit,
            join=True,
            park=session.engine.capabilities.park,
        )
        return [held for held in chosen if held.id not in known]

    def _show_waiting(self, waiting: Sequence[Candidate[Held]], now_s: float) -> None:
        """Put unannounced images into the mailbox: the GPU thread counts them when it chooses its batch size."""
        session = self._state.session
        if session is None or not session.open:
            return
        behind = [each for each in waiting if each.key == session.key and not each.solo]
        # Replaced only when it differs, since every new sequence makes the GPU thread choose again.
        if [each.order for each in behind] != [seat.order for seat in session.mailbox.waiting]:
            session.mailbox.waiting = [_empty(each.seat(now_s)) for each in behind]

    def _following(
        self, session: Session, waiting: Sequence[Candidate[Held]], first: Candidate[Held], now_s: float
    ) -> Sequence[Held]:
        """The next session's first group, if this session is about to end."""
        engine = self._models.engine(first.item.job.render.model)
        if first.solo or not engine.loaded or (session.open and first.key == session.key):
            return ()
        left = left_s(session, now_s, known=self._learned.step_times.known(session.key))
        if left is None or left > self._lead_s():
            return ()
        session.close()
        return self._batch(waiting, now_s)

    def _lead_s(self) -> float:
        """Seconds of lead for an announcement: twice the average one, between MIN_LEAD_S and MAX_LEAD_S."""
        return min(MAX_LEAD_S, max(MIN_LEAD_S, 2 * (self._learned.measurements.seconds(ANNOUNCE_KIND) or 0.0)))


def candidates(window: Window) -> list[Candidate[Held]]:
    """The images that are not announced yet, as the batcher sees them."""
    return [
        Candidate(
            item=held,
            key=held.key,
            steps=held.job.render.num_inference_steps,
            priority=held.job.priority,
            solo=held.job.solo,
            received_s=held.received_s,
            order=held.order,
        )
        for held in window.waiting()
    ]


def _empty(seat: Seat[Held]) -> Seat[Member | None]:
    """The seat of an unannounced image: the policy counts it, but the GPU thread cannot admit it yet."""
    return Seat(
        item=None,
        remaining_steps=seat.remaining_steps,
        priority=seat.priority,
        waited_s=seat.waited_s,
        order=seat.order,
        running=False,
        parked=False,
    )


def _seat(member: Member, remaining: int, now_s: float) -> Seat[Held]:
    """A member's seat with the `remaining` steps expected at the end of the lead time."""
    seat = member.seat(now_s)
    return Seat(
        item=member.held,
        remaining_steps=remaining,
        priority=seat.priority,
        waited_s=seat.waited_s,
        order=seat.order,
        running=seat.running,
        parked=seat.parked,
    )
