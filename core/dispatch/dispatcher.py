"""Puts pending images on the jobs queue, and puts them there again when nobody was heard of them.

It keeps no position: what is pending and what is out follows from the states of open generations, which the
writer announces, so a start and a crash need no care. The order is: choose, send, record. A crash after sending
sends again, and the worker's or the writer's inbox drops the copy; a crash before loses nothing. The queue is
only an optimisation: past its recheck time an image is sent again, alone if it had been started, until it is
decided. An unreachable queue stops nothing but dispatching.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from core.dispatch.in_flight import InFlight, Pace, Policy, Reach, reach
from core.dispatch.job_message import Job, batch_key, outgoing
from core.domain import commands as c
from core.domain.decide import convicted, may_dispatch, runs_alone
from core.domain.fair_queue import FairQueue, Pending
from core.domain.state import Generation, Image, Phase, Ref
from core.domain.transaction import Change, Order
from core.errors import LogBroken
from core.metrics import Metrics
from core.ports import Failpoints, JobQueue
from core.runtime.estimates import Estimates
from core.runtime.prompt_cache import PromptCache
from core.runtime.worker_reports import Workers
from core.runtime.writer import Writer
from infra.retry import Missing, Permanent, Retryable, backoff_s, retry

_log = structlog.get_logger()
BATCH = 10
"""What SQS takes in one call."""

_ROUND = 50
_IDLE_S = 5.0
_AWAY_MS = 30_000
"""How often an image is looked at again whose model no worker can use; a report that one can comes before that."""


class Dispatcher:
    """`heal` makes missing queues again, or raises Retryable; `rng` gives numbers from 0 to 1; `away` says whether no
    worker can use a model for now.
    """

    def __init__(
        self,
        writer: Writer,
        queue: JobQueue,
        prompts: PromptCache,
        *,
        policy: Policy,
        backlog: FairQueue,
        now_ms: Callable[[], int],
        estimates: Estimates,
        workers: Workers,
        away: Callable[[str], bool],
        failpoints: Failpoints,
        heal: Callable[[], Awaitable[None]],
        rng: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._writer = writer
        self._queue = queue
        self._prompts = prompts
        self._policy = policy
        self._now_ms = now_ms
        self._estimates = estimates
        self._workers = workers
        self._away = away
        self._failpoints = failpoints
        self._heal = heal
        self._rng = rng
        self._metrics = metrics
        self._backlog = backlog
        self._in_flight = InFlight()
        self._ages: dict[str, int] = {}
        self._age = 0
        self._stopping = False
        self._sending: set[Ref] = set()
        self._held_back: dict[Ref, str] = {}
        self._wake = asyncio.Event()
        self._pace = Pace()
        self._no_recheck_before_ms = 0
        self.trouble = ""

    @property
    def idle(self) -> bool:
        """Whether nothing is between being chosen and being recorded."""
        return not self._sending

    def take_over(self) -> None:
        """Call before what was loaded is announced: past reports are forgotten, so workers get time for new ones."""
        self._no_recheck_before_ms = self._now_ms() + self._policy.recheck.after_load_ms()

    def stop(self) -> None:
        """Choose no more."""
        self._stopping = True

    @property
    def counts(self) -> Mapping[str, int]:
        """How many images wait, are on the queue, and are on a GPU as far as is known."""
        on_queue = self._in_flight.on_queue
        return {"pending": len(self._backlog), "queued": on_queue, "started": len(self._in_flight) - on_queue}

    def position(self, state: Generation) -> int:
        """Images ahead of the generation's first pending one, plus 1; 0 when none is pending. Approximate."""
        if not state.open:
            return 0
        for image in state.images:
            if image.phase is Phase.PENDING:
                return self._backlog.position((state.id, image.index)) or 1
        return 0

    def is_sending(self, ref: Ref) -> bool:
        """Whether the image is between being chosen and being recorded as sent."""
        return ref in self._sending

    def postpone(self, ref: Ref) -> None:
        """A worker has the image in hand."""
        self._in_flight.postpone(ref, self._now_ms() + self._policy.recheck.after_report_ms())

    def dropped(self, ref: Ref) -> None:
        """A worker drops a job of the image: if it was unwanted, there is room for another."""
        if self._in_flight.dropped(ref):
            self._wake.set()

    def served(self, model: str) -> None:
        """A worker can serve the model from now on: its images need not be held back any more."""
        waiting = [ref for ref, held_for in self._held_back.items() if held_for == model]
        for ref in waiting:
            state = self._writer.open.get(ref[0])
            if state is not None and not state.images[ref[1]].refusals:
                self._ready(state, state.images[ref[1]])
        self._wake.set()

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Follow the writer."""
        for before, after in changes:
            if after.open:
                self._ages.setdefault(after.id, self._age)
                self._age += before is None
                for image in after.images:
                    if before is None or image is not before.images[image.index]:
                        self._place(after, image)
            else:
                self._ages.pop(after.id, None)
                for image in after.images:
                    if self._in_flight.is_on_queue((after.id, image.index)):
                        self._lingers((after.id, image.index))
                    self._forget((after.id, image.index))
        self._wake.set()

    async def run(self) -> None:
        """Dispatch, for ever."""
        failures = 0
        await self._try_heal()
        while True:
            self._wake.clear()
            try:
                more = await self._round()
            except Retryable as error:
                self.trouble = f"jobs queue: {error}"
                _log.warning("dispatch.unreachable", reason=str(error))
                if isinstance(error, Missing):
                    await self._try_heal()
                await asyncio.sleep(backoff_s(failures, first_s=0.2, cap_s=5.0, draw=self._rng()))
                failures += 1
                continue
            failures, self.trouble = 0, ""
            if not more:
                await self._rest()

    async def _rest(self) -> None:
        """Until something changes or the next recheck is due, which concerns nobody once core is stopping."""
        due_ms = None if self._stopping else self._in_flight.next_ms()
        rest_s = _IDLE_S if due_ms is None else min(_IDLE_S, max(0.0, (due_ms - self._now_ms()) / 1000))
        try:
            async with asyncio.timeout(rest_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _try_heal(self) -> None:
        try:
            await self._heal()
        except (Retryable, Permanent) as error:
            _log.warning("dispatch.queues_not_made", reason=str(error))

    async def _round(self) -> bool:
        """One pass; whether there may be more to do at once. Raises Retryable when the queue took nothing."""
        if self._stopping:
            return False
        begun = asyncio.get_running_loop().time()
        jobs, convicts = self._overdue()
        rechecks = len(jobs)
        jobs += self._chosen(_ROUND - len(jobs))
        self._sending.update(job.ref for job in jobs)
        if convicts:
            await self._record([Order(ref[0], c.GiveUp(index=ref[1])) for ref in convicts])
            for ref in convicts:
                self._settle(ref)
        if not jobs:
            return bool(convicts)
        batches = [jobs[start : start + BATCH] for start in range(0, len(jobs), BATCH)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._send(batch), name="dispatch.batch") for batch in batches]
        errors = [error for task in tasks if (error := task.result()) is not None]
        if errors:
            raise errors[0]
        self._metrics.rechecks.inc(rechecks)
        ended = asyncio.get_running_loop().time()
        self._pace.note(ended, ended - begun, len(jobs))
        return True

    def _overdue(self) -> tuple[list[Job], list[Ref]]:
        now_ms = self._now_ms()
        jobs: list[Job] = []
        convicts: list[Ref] = []
        for ref in self._in_flight.due(now_ms, _ROUND):
            state = self._writer.open.get(ref[0])
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
                jobs.append(Job(state, image, runs_alone(image, now_ms)))
            else:
                self._in_flight.again(ref, image.recheck_at_running_ms)
        return jobs, convicts

    def _chosen(self, limit: int) -> list[Job]:
        bound = self._reach()
        self._metrics.runway.set(bound.most)
        sending_s = sum(self._work_s(self._writer.open.get(ref[0])) for ref in self._sending)
        images = self._in_flight.taken(self._now_ms()) + len(self._sending)
        most, least, work_s = bound.room(images, self._in_flight.work_s + sending_s, len(self._backlog), BATCH)
        pending = self._backlog.choose(min(limit, most), BATCH, least=least, work_s=work_s)
        chosen = [(self._writer.open[each.ref[0]], each.ref[1]) for each in pending]
        return [
            Job(state, state.images[index], runs_alone(state.images[index], self._now_ms())) for state, index in chosen
        ]

    def _work_s(self, state: Generation | None) -> float:
        return self._estimates.work_s(state.spec) if state else 0.0

    def _reach(self) -> Reach:
        if self._policy.runway:
            return Reach(least=self._policy.runway, most=self._policy.runway)
        return reach(self._workers.batches(), self._pace.reach())

    async def _send(self, batch: Sequence[Job]) -> Retryable | None:
        """Send and record one batch of ten; what was not taken goes back. The error, when nothing can be said."""
        await self._failpoints.reach("core.before_send")
        try:
            prompts = await self._prompts.of_open([job.state.id for job in batch])
            accepted = await self._queue.send([outgoing(job, prompts, self._policy.queue) for job in batch])
        except LogBroken:
            raise
        except (Retryable, Permanent) as error:
            self._put_back(batch)
            return error if isinstance(error, Retryable) else Retryable(str(error))
        await self._failpoints.reach("core.after_send")
        sent = [job for job, taken in zip(batch, accepted, strict=True) if taken]
        if not self._in_flight:
            self._estimates.work_begins()
        wait_s = self._estimates.wait_s(self._in_flight.on_queue + len(self._sending), self._policy.recheck.cap_s)
        await self._record([self._dispatch(job, wait_s) for job in sent])
        self._metrics.dispatched.inc(len(sent))
        self._sending.difference_update(job.ref for job in sent)
        for job in sent:
            self._settle(job.ref)
            if job.state.id not in self._writer.open:
                self._lingers(job.ref)
        refused = [job for job, taken in zip(batch, accepted, strict=True) if not taken]
        self._put_back(refused)
        return Retryable("some messages were refused") if refused else None

    async def _record(self, orders: Sequence[Order]) -> None:
        """What was done must be recorded, however long the disk is full."""
        if orders:
            await retry(lambda: self._writer.carry_out(orders), attempts=None, cap_s=2.0, rng=self._rng)

    def _dispatch(self, job: Job, wait_s: float) -> Order:
        dispatch = job.image.dispatches + 1
        after_ms = self._policy.recheck.after_dispatch_ms(dispatch, wait_s)
        return Order(job.state.id, c.Dispatch(index=job.image.index, dispatch=dispatch, recheck_after_ms=after_ms))

    def _put_back(self, jobs: Sequence[Job]) -> None:
        self._metrics.send_failures.inc(len(jobs))
        for job in jobs:
            self._sending.discard(job.ref)
            self._settle(job.ref)

    def _settle(self, ref: Ref) -> None:
        """Put an image that is not being sent any more where it belongs, whatever has happened meanwhile."""
        state = self._writer.open.get(ref[0])
        if state is not None:
            self._place(state, state.images[ref[1]])

    def _place(self, state: Generation, image: Image) -> None:
        ref = (state.id, image.index)
        if image.decided:
            self._forget(ref)
        elif image.phase is not Phase.PENDING:
            self._backlog.remove(ref)
            due_ms = max(image.recheck_at_running_ms, self._no_recheck_before_ms)
            on_queue = image.phase is Phase.DISPATCHED
            self._in_flight.put(ref, due_ms, on_queue=on_queue, work_s=self._work_s(state))
        elif convicted(image):
            self._in_flight.put(ref, 0, on_queue=False)
        elif ref in self._sending:
            pass  # it is placed when it has been sent
        elif pause_ms := self._pause_ms(state, image):
            self._backlog.remove(ref)
            self._in_flight.put(ref, self._now_ms() + pause_ms, on_queue=False)
            self._held_back[ref] = state.spec.model
        else:
            self._ready(state, image)

    def _pause_ms(self, state: Generation, image: Image) -> int:
        """How long an image that could go out waits: workers refused it or cannot use its model, or its object was
        lost, and what lost it may last; 0: not.
        """
        recheck = self._policy.recheck
        return max(
            recheck.after_refusal_ms(image.refusals) if image.refusals else 0,
            recheck.after_uncounted_refusal_ms(image.uncounted_refusals) if image.uncounted_refusals else 0,
            recheck.after_refusal_ms(len(image.revoked_attempts)) if image.revoked_attempts else 0,
            _AWAY_MS if self._away(state.spec.model) else 0,
        )

    def _ready(self, state: Generation, image: Image) -> None:
        """What was held back takes its turn like all that wait."""
        ref = (state.id, image.index)
        self._held_back.pop(ref, None)
        if image.phase is Phase.PENDING and ref not in self._sending:
            self._in_flight.drop(ref)
            self._backlog.add(self._pending(state, image))

    def _lingers(self, ref: Ref) -> None:
        """Else who asks and cancels without pause would fill the queue with jobs that others' have to wait for."""
        self._in_flight.lingers(ref, self._now_ms() + self._policy.recheck.after_load_ms())

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
            key=ref if image.suspect else batch_key(state.spec),
            work_s=self._estimates.work_s(state.spec),
        )
