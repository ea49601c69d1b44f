"""Chooses what goes to the GPU next and announces it: `started` is accepted by the reply queue before an image is
admitted, and sent while others render, so that the GPU does not wait for it.

Choices are made as late as the time that announcing takes allows, so that late arrivals get in: an image is announced
to join the running session when the admission policy would seat it by then, and the next session's first group when
the running one is about to end.

**Solo.** Core convicts an image by starts alone that brought no result, so nothing else may be able to end the
process while a solo image is unfinished: it is announced only when the worker holds nothing else that was started,
and nothing else is announced until its reply is accepted. Solo work therefore does not overlap.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from worker.batching.batcher import Candidate, head, next_batch
from worker.batching.measurements import Measurements
from worker.batching.policy import Seat, next_step
from worker.batching.step_times import StepTimes
from worker.engines.contract import BatchKey, Engine
from worker.engines.errors import Unsupported
from worker.gpu.gpu_state import GpuState, left_s, quantum_s, staying
from worker.gpu.model_faults import ModelFault, refusal_of
from worker.gpu.model_pool import ModelPool
from worker.gpu.session import Session
from worker.gpu.slots import Member, members_of
from worker.gpu.still_wanted import StillWantedCheck
from worker.holding.types import Batch, Failure, Held, State
from worker.holding.window import Window
from worker.output.settling import Settler
from worker.ports import Failpoints, NewId
from worker.tuning import Mode

ANNOUNCE_KIND = ("announce",)
MIN_LEAD_S = 0.02
MAX_LEAD_S = 2.0
LOOK_S = 0.05
"""How often is looked whether a session whose end nobody reports is about to end."""


class Announcer:
    """One task of the GPU loop."""

    def __init__(
        self,
        window: Window,
        models: ModelPool,
        inquiry: StillWantedCheck,
        settler: Settler,
        floor: GpuState,
        *,
        mode: Mode,
        curves: StepTimes,
        measured: Measurements,
        refuse: Callable[[Held, Failure, str], Awaitable[None]],
        new_id: NewId,
        failpoints: Failpoints,
    ) -> None:
        self._window = window
        self._models = models
        self._inquiry = inquiry
        self._settler = settler
        self._floor = floor
        self._mode = mode
        self._curves = curves
        self._measured = measured
        self._refuse = refuse
        self._new_id = new_id
        self._failpoints = failpoints
        self.closed = False

    def close(self) -> None:
        """Announce nothing more."""
        self.closed = True
        self._window.touch()

    async def coming(self) -> Batch | None:
        """The next session's first group, once it is announced; None after `close`."""
        while not self.closed:
            group, self._floor.coming = self._floor.coming, None
            if group is not None:
                self._window.touch()
                return group
            await self._window.changed()
        return None

    async def run(self) -> None:
        """Until `close`."""
        while not self.closed:
            chosen = self._choose()
            if not chosen:
                retried = self._models.to_retry() if self._is_idle() else None
                await (self._models.load(retried) if retried is not None else self._look_again())
                continue
            model = chosen[0].job.render.model
            engine, fault = self._models.engine(model), self._models.fault(model)
            if fault is not None:
                await self._refuse_all(chosen, fault)
                continue
            if not engine.loaded:
                await self._load(engine, chosen)
                continue
            await self._announce(engine, chosen)

    def _is_idle(self) -> bool:
        return self._floor.session is None and self._floor.coming is None and not self._window.upcoming()

    async def _load(self, engine: Engine, chosen: Sequence[Held]) -> None:
        """Once, and only for what is still wanted. What waited for the model is looked at again: a loaded model knows
        more of what it cannot do, and one that cannot be loaded refuses all.
        """
        await self._inquiry.before_batch(chosen)
        wanted = [held for held in chosen if held.state is State.WAITING]
        if not wanted or self.closed:
            return
        model = wanted[0].job.render.model
        fault = self._models.fault(model)
        if fault is None:
            fault = await self._models.load(engine, wanted_since_s=min(held.existed_s for held in wanted))
        if fault is not None:
            await self._refuse_all([each for each in self._window.waiting() if each.job.render.model == model], fault)
        for held in self._window.waiting():
            try:
                held.key = self._models.key(held.job.render)
            except Unsupported as error:
                if held.state is State.WAITING:
                    await self._refuse(held, *refusal_of(error))

    async def _refuse_all(self, waiting: Sequence[Held], fault: ModelFault) -> None:
        for held in waiting:
            if held.state is State.WAITING:  # it may end while others are refused
                await self._refuse(held, fault.failure, fault.reason)

    async def _look_again(self) -> None:
        """The window changes with every step reported while images wait; a session may also end without a report."""
        timeout = LOOK_S if self._floor.session is not None and self._window.waiting_count() else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._window.changed()

    def _choose(self) -> Sequence[Held]:
        """Who is to be announced now; nobody most of the time."""
        if self._floor.coming is not None:
            return ()
        waiting = self._candidates()
        now_s = asyncio.get_running_loop().time()
        self._tell(waiting, now_s)
        first = head(waiting, now_s=now_s)
        if first is None or self._must_wait(solo=first.solo):
            return ()
        session = self._floor.session
        if session is None:
            return self._batch(waiting, now_s)
        if self._mode is not Mode.OVERLAPPED:
            return ()
        if first.solo or (first.key != session.key and now_s - session.began_s >= quantum_s(session, session.key)):
            session.close()
        joining = self._joining(session, waiting, now_s) if session.open else ()
        return joining or self._following(session, waiting, first, now_s)

    def _candidates(self) -> list[Candidate[Held]]:
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
            for held in self._window.waiting()
        ]

    def _must_wait(self, *, solo: bool) -> bool:
        """Solo images and everything else keep apart, from announcement to settling; without overlap everybody does."""
        busy = self._window.busy()
        serial = solo or self._mode is not Mode.OVERLAPPED
        return bool(busy) and (serial or any(held.job.solo for held in busy))

    def _batch(self, waiting: Sequence[Candidate[Held]], now_s: float) -> Sequence[Held]:
        step_s = self._curves.step_s if self._mode is Mode.OVERLAPPED else _greedily
        return next_batch(waiting, step_s=step_s, limit=self._limit, now_s=now_s)

    def _limit(self, held: Held) -> int:
        return 1 if self._mode is Mode.PLAIN else self._models.limit(held.job.render, held.key)

    def _joining(self, session: Session, waiting: Sequence[Candidate[Held]], now_s: float) -> Sequence[Held]:
        """Whom the policy would seat, by the time they are announced, among those who are here by then."""
        mates = [each.seat(now_s) for each in waiting if each.key == session.key and not each.solo]
        if not mates or not session.roster or session.offered:
            return ()
        limit = self._limit(mates[0].item)
        here = staying(session, self._lead_s())
        known = {member.id for member, _ in here}
        chosen = next_step(
            [_seat(member, remaining, now_s) for member, remaining in here] + mates,
            step_s=self._curves.step_s(session.key),
            limit=limit,
            join=True,
            park=session.engine.capabilities.park,
        )
        return [held for held in chosen if held.id not in known]

    def _tell(self, waiting: Sequence[Candidate[Held]], now_s: float) -> None:
        """The GPU thread sizes its batches by all who wait, the unannounced included."""
        session = self._floor.session
        if session is None or not session.open:
            return
        behind = [each for each in waiting if each.key == session.key and not each.solo]
        if [each.order for each in behind] != [seat.order for seat in session.behind]:
            session.behind = [_nobody(each.seat(now_s)) for each in behind]

    def _following(
        self, session: Session, waiting: Sequence[Candidate[Held]], first: Candidate[Held], now_s: float
    ) -> Sequence[Held]:
        """The next session's first group, if this one is about to end."""
        engine = self._models.engine(first.item.job.render.model)
        if first.solo or not engine.loaded or (session.open and first.key == session.key):
            return ()
        left = left_s(session, now_s, known=self._curves.known(session.key))
        if left is None or left > self._lead_s():
            return ()
        session.close()
        return self._batch(waiting, now_s)

    def _lead_s(self) -> float:
        return min(MAX_LEAD_S, max(MIN_LEAD_S, 2 * (self._measured.seconds(ANNOUNCE_KIND) or 0.0)))

    async def _announce(self, engine: Engine, chosen: Sequence[Held]) -> None:
        """Ask whether they are wanted, say that they start, and let the GPU have them. A job that is another one by the
        time of the answer may have to run alone: then it is all chosen anew.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        jobs = [held.job for held in chosen]
        await self._inquiry.before_batch(chosen)
        if any(held.job is not job for held, job in zip(chosen, jobs, strict=True)):
            return
        members = tuple(held for held in chosen if held.state is State.WAITING)
        if not members or self.closed:
            return
        group = Batch(
            id=self._new_id("bat"),
            engine=engine,
            key=members[0].key,
            members=members,
            solo=members[0].job.solo,
        )
        for held in members:
            held.attempt_id = self._new_id("att")
            self._window.move(held, State.STARTED)
        await self._settler.started(group)
        await self._failpoints.reach("worker.batched")
        self._measured.observe(ANNOUNCE_KIND, loop.time() - began_s)
        self._models.touch(engine)
        self._hand_over(group)

    def _hand_over(self, group: Batch) -> None:
        session = self._floor.session
        if session is not None and session.open and session.key == group.key and not group.solo:
            session.offer(members_of(group))
        else:
            self._floor.coming = group
        self._window.touch()


def _greedily(_: BatchKey) -> Callable[[int], float]:
    """As if batching were free: a static batch takes all it can."""
    return lambda _: 1.0


def _nobody(seat: Seat[Held]) -> Seat[Member | None]:
    """Somebody who cannot be seated yet, but counts."""
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
    """A member of the session, as it will be."""
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
