"""Drives sessions on the GPU thread, hands on what comes out of them, and finds the culprit when one breaks.

A failing batch is halved until the culprit is alone: it is reported, and its mates succeed. A batch that runs out of
memory is halved too, and the smaller size is remembered. When an engine's own process has died, each suspect runs alone
at once, since every further death costs another load of the model. A bad picture fails only its own image.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from worker.batching.learned import Learned
from worker.context import Context
from worker.engines.contract import BatchKey, Engine, Progress
from worker.engines.errors import EngineAway
from worker.gpu.gpu_thread import GpuThread
from worker.gpu.models.model_pool import ModelPool
from worker.gpu.render_record import RenderRecord
from worker.gpu.sessions.events import Admitted, Crash, Decoded, Dropped, EngineFailed, Event, TimeSpent, TurnEnd
from worker.gpu.sessions.mailbox import Mailbox, ThreadContext
from worker.gpu.sessions.members import Member, members_of
from worker.gpu.sessions.session import Session
from worker.holding.types import Batch, Failed, Failure, Held, State
from worker.holding.window import Window
from worker.output.delivery import Delivery
from worker.time_ledger import Cause

_log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class _Isolation:
    """The work left after a crash: groups of suspects that run apart, and members that are not suspect."""

    groups: list[list[Member]] = field(default_factory=list)
    innocents: list[Member] = field(default_factory=list)


class Renderer:
    """Used by the GPU loop, one session at a time."""

    def __init__(
        self,
        context: Context,
        gpu: GpuThread,
        window: Window,
        delivery: Delivery,
        models: ModelPool,
        learned: Learned,
        record: RenderRecord,
    ) -> None:
        self._context = context
        self._gpu = gpu
        self._window = window
        self._delivery = delivery
        self._models = models
        self._learned = learned
        self._record = record
        self._thread_context = ThreadContext(
            clock=context.clock, permits=delivery.permits, limit=models.limit, record=context.recorder
        )
        self._hung = False
        self._between: tuple[Cause, float] | None = None

    def session(self, engine: Engine, key: BatchKey, *, joins_midway: bool, solo: bool = False) -> Session:
        """A session that others may join midway, where the engine allows it too; none may join a `solo` one."""
        loop = asyncio.get_running_loop()
        session: Session

        def post(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(self._posted, session, event)

        def report(progress: Progress) -> None:
            self._context.failpoints.reach_now("worker.gpu_mid")
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._progressed, progress)

        mailbox = Mailbox(post=post, report=report, step_seconds=self._learned.step_times.step_s(key))
        session = Session(engine, key, mailbox, self._thread_context, joins_midway=joins_midway)
        if solo:
            session.close()
        return session

    async def run(self, session: Session) -> None:
        """Returns when every member has left the GPU, those that joined meanwhile included. Raises EngineLost, and
        EngineAway when the model cannot be used for now: what is announced or running has yet to be answered.
        """
        while True:
            crash = await self._until_it_ends(session)
            if crash is not None:
                await self._isolate(session, crash)
            elif not session.mailbox.offered:
                return

    def hung(self) -> None:
        """Call before killing the engine's process because it hung: the crash that follows is reported as HUNG."""
        self._hung = True

    async def _until_it_ends(self, session: Session) -> Crash | None:
        """Run turns, each once a permit is free. Returns the crash that ended them, or None if no image is left."""
        while True:
            end = await self._turn(session)
            self._close_gap(end.at_s)
            if end.crash is not None and not end.crash.out:
                self._between = (Cause.RESTARTING, end.at_s)
                return end.crash
            if not end.full:
                self._context.ledger.idle_began(end.at_s)
                return end.crash
            self._between = (Cause.BACKPRESSURE, end.at_s)
            await self._delivery.wait_for_permit()
            self._gpu.waits.backpressure_until_s = self._context.clock()

    def _close_gap(self, now_s: float) -> None:
        """Book the time between two pieces of the thread's work, now that the next has begun, under its noted cause."""
        if self._between is not None:
            cause, began_s = self._between
            self._between = None
            self._context.ledger.spend(cause, began_s, now_s)

    async def _turn(self, session: Session) -> TurnEnd:
        self._gpu.pulse.begin(session.key, self._context.clock())
        end: TurnEnd | None = None
        try:
            end = await self._gpu.threads.run(session.turn)
        finally:
            if end is None or end.crash is not None:
                self._gpu.pulse.fail()
            else:
                self._gpu.pulse.end(self._context.clock())
        return end

    def _progressed(self, progress: Progress) -> None:
        self._gpu.pulse.beat(self._context.clock())
        self._record.progressed(progress.steps)
        if self._window.waiting_count():
            self._window.touch()  # the next images may have to be announced

    def _posted(self, session: Session, event: Event) -> None:
        """Handles what the GPU thread reports, in its order, on the event loop. Never waits."""
        match event:
            case Admitted():
                self._close_gap(event.at_s)
                self._context.ledger.idle_ended(
                    event.at_s, existed_since_s=min(each.held.existed_s for each in event.members)
                )
                self._record.admitted(event.members, event.at_s, self._gpu.waits)
                self._window.touch()
            case TimeSpent():
                self._spent(session, event)
            case Dropped():
                self._record.left(event.member)
                self._delivery.drop_now(event.member.held)
            case Decoded():
                self._gpu.pulse.learn()
                self._hand_on(session, event)
            case EngineFailed():
                self._gpu.pulse.fail()
                if not session.engine.capabilities.restartable:  # a restartable one limits its own restart
                    self._gpu.pulse.begin_reset(self._context.clock())

    def _spent(self, session: Session, event: TimeSpent) -> None:
        self._close_gap(event.began_s)
        self._context.ledger.spend(event.cause, event.began_s, event.ended_s)
        self._between = (Cause.BETWEEN_STEPS, event.ended_s)
        self._gpu.pulse.beat(event.ended_s)
        if event.cause is not Cause.RENDERING:
            return
        self._gpu.waits.batch_until_s = event.ended_s
        self._context.metrics.batch_size.observe(event.size)
        if event.fits is not None:
            self._learned.batch_limits.measured(session.key, event.fits)
        if event.timed is not None:
            self._learned.step_times.observe(session.key, event.timed.size, event.timed.seconds)
            session.mailbox.step_seconds = self._learned.step_times.step_s(session.key)

    def _hand_on(self, session: Session, event: Decoded) -> None:
        held = event.member.held
        self._record.left(event.member, event.bad)
        if held.unwanted:
            self._delivery.permits.release()
            self._delivery.drop_now(held)
        elif event.picture is None:
            self._delivery.permits.release()
            self._delivery.fail_now(Failed(held=held, failure=event.failure, detail=event.bad))
        else:
            self._models.proven(session.engine)
            self._delivery.deliver_now(self._record.finished(event, session.engine.facts))

    async def _isolate(self, session: Session, crash: Crash) -> None:
        """Run the suspects apart until the culprit has broken the engine alone; the others go on afterwards."""
        work = _Isolation()
        self._judge(work, crash)
        while work.groups:
            members = work.groups.pop()
            apart = self.session(session.engine, session.key, joins_midway=session.joins_midway, solo=True)
            apart.offer(members)
            again = await self._until_it_ends(apart)
            if again is not None:
                self._judge(work, again)
        session.offer(work.innocents)

    def _judge(self, work: _Isolation, crash: Crash) -> None:
        """Fail a suspect that was alone; otherwise split the suspects into groups to run. Raises EngineAway."""
        hung, self._hung = self._hung, False
        members = [*crash.suspects, *crash.innocents]
        for member in members:
            self._record.left(member, crash.detail)
        if crash.out:
            if crash.died and len(crash.suspects) == 1:  # it ended the process, which then did not start again
                failure = Failure.HUNG if hung else crash.failure
                self._delivery.fail_now(Failed(held=crash.suspects[0].held, failure=failure, detail=crash.detail))
            raise EngineAway(crash.out, pause_s=crash.pause_s)
        work.innocents += self._restarted([each.held for each in crash.innocents])
        suspects = [each.held for each in crash.suspects]
        if crash.failure is Failure.OUT_OF_MEMORY:
            self._learned.batch_limits.ran_out(members[0].held.job.render, crash.together)
        if not suspects:
            return
        # Out of memory beside parked images says nothing about the one that ran: it runs again without them.
        if len(suspects) == 1 and (crash.failure is not Failure.OUT_OF_MEMORY or not crash.innocents):
            failure = Failure.HUNG if hung else crash.failure
            self._delivery.fail_now(Failed(held=suspects[0], failure=failure, detail=crash.detail))
            return
        reason = "died" if crash.died else crash.failure.name.lower()
        self._context.metrics.bisected.labels(reason=reason).inc()
        left = [held for held in suspects if held.state in (State.STARTED, State.RUNNING)]
        _log.warning("batch.split", size=len(suspects), left=len(left), reason=crash.detail)
        # Every further death of a process costs loading the model again: then each suspect runs alone at once.
        middle = 1 if crash.died else (len(left) + 1) // 2
        parts = [left[at : at + middle] for at in range(0, len(left), middle)] if left else []
        # Reversed, since `_isolate` pops the last group first.
        work.groups.extend(self._restarted(part) for part in reversed(parts))

    def _restarted(self, held: Sequence[Held]) -> list[Member]:
        """New members for these images, as one group: they begin again at their first step."""
        if not held:
            return []
        first = held[0]
        engine = self._models.engine(first.job.render.model)
        group = Batch(
            id=self._context.new_id("bat"), engine=engine, key=first.key, members=tuple(held), solo=first.job.solo
        )
        return members_of(group)
