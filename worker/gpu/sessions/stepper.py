"""A session's part on the GPU thread: images of one batch key that join, are parked and leave at every step.

It owns its members while a turn lasts, takes offered ones from the mailbox and posts events about them there. Nothing
here waits for the event loop, so the thread is idle only between turns. A turn ends because nothing is left to do,
because no further picture can leave, or because the engine failed.
"""

from collections.abc import Sequence

from worker.engines.contract import BatchKey, Engine, Stepped, StepTime
from worker.engines.errors import EngineLost
from worker.gpu.models.model_faults import is_panic
from worker.gpu.sessions.choice import StepChooser
from worker.gpu.sessions.engine_faults import EngineFault, fault_of, reset
from worker.gpu.sessions.events import Admitted, Crash, Dropped, EngineFailed, TimeSpent, TurnEnd
from worker.gpu.sessions.mailbox import Mailbox, ThreadContext
from worker.gpu.sessions.members import Member, note_mates
from worker.gpu.sessions.picture_decoder import InHand, PictureDecoder
from worker.time_ledger import Cause


class Stepper:
    """Everything is called on the GPU thread. `joins_midway` as in `Session`."""

    def __init__(
        self, engine: Engine, key: BatchKey, mailbox: Mailbox, context: ThreadContext, *, joins_midway: bool
    ) -> None:
        can = engine.capabilities
        self._engine = engine
        self._key = key
        self._mailbox = mailbox
        self._context = context
        self._chooser = StepChooser(joins=joins_midway and can.join_midway, parks=joins_midway and can.park)
        self._in_hand = InHand()
        self._decoder = PictureDecoder(engine, mailbox, context, self._in_hand)
        self._members: list[Member] = []
        self._together: frozenset[str] = frozenset()
        self._step_took_s = 0.0

    def turn(self) -> TurnEnd:
        """Run until no image is left, no permit is free, or the engine fails. Raises EngineLost."""
        try:
            return self._go_on()
        except EngineLost:
            raise
        except BaseException as error:
            if not (isinstance(error, Exception) or is_panic(error)):
                raise
            fault = fault_of(error)
        # outside the except block: the traceback would keep tensors alive during the reset
        return self._crashed(fault)

    def _go_on(self) -> TurnEnd:
        queue = self._decoder.queue
        while True:
            blocked = self._blocked()
            if not blocked:
                self._take_offered()
            chosen = self._chosen(blocked=blocked)
            if chosen:
                self._step(chosen)
            elif not queue:
                return self._end()
            elif not self._context.permits.available:
                return self._end(full=True)
            else:
                queue.under_way = 0  # no step is launched beside it
            self._decoder.decode_some(self._members, until_s=self._step_took_s if self._members else None)

    def _blocked(self) -> bool:
        """Whether no image may begin, because no picture can leave or a whole batch is ready to be decoded. Without
        this limit each permit that comes free would let in another batch, and undecoded images would fill the device's
        memory.
        """
        queue = self._decoder.queue
        if not queue:
            return False
        limit = self._context.limit(queue.first.held.job.render, self._key)
        return queue.ready >= limit or not self._context.permits.available

    def _end(self, *, full: bool = False) -> TurnEnd:
        return TurnEnd(at_s=self._context.clock(), full=full)

    def _take_offered(self) -> None:
        """Let in the members offered; drop those that are no longer wanted and have not begun."""
        self._members += self._mailbox.take_offered()
        unwanted = [each for each in self._members if each.held.unwanted and not (each.running or each.parked)]
        for member in unwanted:
            self._members.remove(member)
            self._mailbox.post(Dropped(member=member))
        if unwanted or len(self._members) != len(self._mailbox.roster):
            self._mailbox.roster = tuple(self._members)

    def _chosen(self, *, blocked: bool) -> Sequence[Member]:
        """The members that take the next step; while `blocked`, only running ones."""
        members = [each for each in self._members if each.running] if blocked else self._members
        if not members:
            return ()
        return self._chooser.choose(
            members,
            self._mailbox.waiting,
            limit=self._context.limit(members[0].held.job.render, self._key),
            clock=self._context.clock,
            step_s=self._mailbox.step_seconds,
        )

    def _step(self, chosen: Sequence[Member]) -> None:
        clock = self._context.clock
        began_s = self._in_hand.begin(Cause.RENDERING, chosen, clock())
        self._seat(chosen, began_s)
        stepping_s = clock()
        stepped = self._engine.step(self._mailbox.report)
        ended_s = clock()
        self._step_took_s, self._decoder.ahead = ended_s - stepping_s, stepped.ahead
        steps = (
            1
            if self._engine.capabilities.join_midway
            else max(each.held.job.render.num_inference_steps for each in chosen)
        )
        self._mailbox.post(
            TimeSpent(
                cause=Cause.RENDERING,
                began_s=began_s,
                ended_s=ended_s,
                size=len(chosen),
                timed=self._timed(stepped, len(chosen), steps),
                fits=stepped.fits,
            )
        )
        self._context.record("render", ",".join(each.id for each in chosen), began_s, ended_s)
        for member in chosen:
            member.gpu_s += (ended_s - began_s) / len(chosen)
            member.batch_gpu_s += ended_s - began_s
            member.remaining = max(1, member.remaining - steps)
        self._sort_out(stepped)
        self._in_hand.end()

    def _timed(self, stepped: Stepped, size: int, steps: int) -> StepTime | None:
        """The step time to learn: by the device's clock if it works ahead, else the call's time, divided by `steps`.
        None when the device has measured none, or when an image was evicted during the call.
        """
        if stepped.ahead:
            return stepped.timed
        return None if stepped.evicted else StepTime(size=size, seconds=self._step_took_s / steps)

    def _seat(self, chosen: Sequence[Member], now_s: float) -> None:
        """Park those that stand aside, unpark those that go on, admit those that are new."""
        going = frozenset(member.id for member in chosen)
        for member in self._members:
            if member.running and member.id not in going:
                self._engine.park(member.id)
                member.running, member.parked = False, True
        new = [member for member in chosen if not (member.running or member.parked)]
        for member in chosen:
            if member.parked:
                self._engine.unpark(member.id)
            member.running, member.parked = True, False
        if new:
            self._mailbox.post(Admitted(members=new, at_s=now_s))
            self._engine.admit([member.held.job.render for member in new])
            for member in new:
                if member.held.unwanted:  # evicted before the engine knew it, so that was ignored
                    self._engine.evict(member.id)
        if going != self._together:
            self._together = going
            note_mates(chosen)

    def _sort_out(self, stepped: Stepped) -> None:
        """Those that are finished wait to be decoded; those that were evicted leave."""
        by_id = {member.id: member for member in self._members}
        self._decoder.queue.add([(by_id.pop(done.job_id), done) for done in stepped.finished], ahead=stepped.ahead)
        for job_id in stepped.evicted:
            if job_id in by_id:
                self._mailbox.post(Dropped(member=by_id.pop(job_id)))
        if len(by_id) != len(self._members):
            self._members = list(by_id.values())
            self._mailbox.roster = tuple(self._members)

    def _crashed(self, fault: EngineFault) -> TurnEnd:
        """Reset the engine and report which images were at work. All images begin again, those at work as suspects
        unless the model is away, for which no image is to blame.
        """
        began_s = self._context.clock()
        at_work = list(self._in_hand.members)
        suspects = [] if fault.away else at_work
        if at_work:
            self._mailbox.post(self._in_hand.spent(began_s, size=len(at_work)))
        self._mailbox.post(EngineFailed())
        innocents = [each for each in self._members if each not in suspects]
        innocents += [each for each in self._decoder.queue.clear() if each not in suspects]
        together = len({member.id for member in self._members if member.running} | {each.id for each in suspects})
        self._in_hand.end()
        self._members, self._mailbox.roster = [], ()
        away = fault.away or reset(self._engine)
        ended_s = self._context.clock()
        self._mailbox.post(TimeSpent(cause=Cause.RESTARTING, began_s=began_s, ended_s=ended_s))
        crash = Crash(
            suspects=suspects,
            innocents=innocents,
            together=together,
            failure=fault.failure,
            detail=fault.detail,
            died=fault.died,
            out=str(away) if away else "",
            pause_s=away.pause_s if away else 0.0,
        )
        return TurnEnd(at_s=ended_s, crash=crash)
