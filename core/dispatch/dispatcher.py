"""The send loop: puts pending images on the jobs queue, and again those without a report by their recheck.

The order is: choose, send, record. After a crash between sending and recording, the image is sent again; the worker
drops the copy, or the writer ignores its replies. A crash before sending loses nothing. The log, not the queue,
says what is unfinished: past its recheck an image is sent again until it is decided, solo if it had been started. An
unreachable queue stops only dispatching. `image_book` tracks which image is in what state.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from core.context import Context
from core.dispatch.image_book import BATCH, ImageBook, Job
from core.dispatch.in_flight import FlowControl
from core.dispatch.job_message import JobSender
from core.domain import commands as c
from core.domain.state import Ref
from core.domain.transaction import Change, Order
from core.errors import LogBroken
from core.runtime.estimates import Estimates
from core.runtime.provisioning import Provisioning
from core.runtime.writer import Writer
from infra.retry import Backoff, Missing, Permanent, Retryable, retry

_log = structlog.get_logger()
_ROUND: Final = 50
_IDLE_S: Final = 5.0
_NOT_MADE: Final = "dispatch.queues_not_made"


class Dispatcher:
    """Listens to the writer, to workers' reports (`worker_reports.Dispatching`) and to the models' reports."""

    def __init__(
        self,
        writer: Writer,
        sender: JobSender,
        book: ImageBook,
        flow: FlowControl,
        estimates: Estimates,
        provisioning: Provisioning,
        context: Context,
    ) -> None:
        self._writer = writer
        self._sender = sender
        self._book = book
        self._flow = flow
        self._estimates = estimates
        self._provisioning = provisioning
        self._failpoints = context.failpoints
        self._now_ms = context.now_ms
        self._rng = context.rng
        self._metrics = context.metrics
        self._stopping = False
        self._wake = asyncio.Event()
        self.trouble = ""

    @property
    def idle(self) -> bool:
        """Whether nothing is between being chosen and being recorded."""
        return not self._book.any_sending

    def begin(self) -> None:
        """Call before loaded generations are announced."""
        self._book.begin(self._now_ms())

    def stop(self) -> None:
        """Choose no more images; those being sent are still recorded."""
        self._stopping = True

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Follow the writer."""
        self._book.on_changes(changes, self._now_ms())
        self._wake.set()

    def served(self, model: str) -> None:
        """A worker can serve the model from now on."""
        self._book.served(model)
        self._wake.set()

    def is_sending(self, ref: Ref) -> bool:
        """As `worker_reports.Dispatching.is_sending`."""
        return self._book.is_sending(ref)

    def postpone(self, ref: Ref) -> None:
        """As `worker_reports.Dispatching.postpone`."""
        self._book.held_by_worker(ref, self._now_ms())

    def dropped(self, ref: Ref) -> None:
        """As `worker_reports.Dispatching.dropped`."""
        if self._book.dropped(ref):
            self._wake.set()

    async def run(self) -> None:
        """Dispatch. Never returns."""
        backoff = Backoff(first_s=0.2, cap_s=5.0, rng=self._rng)
        await self._provisioning.try_ensure(_NOT_MADE)
        while True:
            self._wake.clear()
            try:
                more = await self._round()
            except Retryable as error:
                self.trouble = f"jobs queue: {error}"
                _log.warning("dispatch.unreachable", reason=str(error))
                if isinstance(error, Missing):
                    await self._provisioning.try_ensure(_NOT_MADE)
                await backoff.pause()
                continue
            self.trouble = ""
            backoff.reset()
            if not more:
                await self._rest()

    async def _rest(self) -> None:
        """Wait until something changes or the next recheck is due. A stopping core has no rechecks."""
        due_ms = None if self._stopping else self._book.next_due_ms
        rest_s = _IDLE_S if due_ms is None else min(_IDLE_S, max(0.0, (due_ms - self._now_ms()) / 1000))
        try:
            async with asyncio.timeout(rest_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _round(self) -> bool:
        """One pass; returns whether there may be more to do at once. Raises Retryable when the queue could not be
        reached or refused a message.
        """
        if self._stopping:
            return False
        begun = asyncio.get_running_loop().time()
        jobs, convicts = self._book.overdue(_ROUND, self._now_ms())
        rechecks = len(jobs)
        jobs += self._chosen(_ROUND - len(jobs))
        # Before the first await: a change that comes while these are sent must not put them into the backlog again.
        self._book.sending(jobs)
        if convicts:
            await self._give_up(convicts)
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
        self._flow.note(ended, ended - begun, len(jobs))
        return True

    def _chosen(self, limit: int) -> list[Job]:
        target = self._flow.target()
        self._metrics.runway.set(target.most)
        return self._book.choose(limit, target, self._now_ms())

    async def _give_up(self, convicts: Sequence[Ref]) -> None:
        await self._record([Order(ref[0], c.GiveUp(index=ref[1])) for ref in convicts])
        for ref in convicts:
            self._book.look_again(ref, self._now_ms())

    async def _send(self, batch: Sequence[Job]) -> Retryable | None:
        """Send one batch of up to ten, record those accepted, and put the others back. Returns the error if the queue
        could not be reached or refused a message. An error is not raised, since it would cancel the other batches.
        """
        await self._failpoints.reach("core.before_send")
        try:
            accepted = await self._sender.send(batch)
        except LogBroken:
            raise
        except (Retryable, Permanent) as error:
            self._put_back(batch)
            return error if isinstance(error, Retryable) else Retryable(str(error))
        await self._failpoints.reach("core.after_send")
        sent = [job for job, taken in zip(batch, accepted, strict=True) if taken]
        if not self._book.any_out:
            self._estimates.work_begins()
        wait_s = self._estimates.wait_s(self._book.ahead, self._book.recheck.cap_s)
        await self._record([self._dispatch(job, wait_s) for job in sent])
        self._metrics.dispatched.inc(len(sent))
        self._book.sent(sent, self._now_ms())
        refused = [job for job, taken in zip(batch, accepted, strict=True) if not taken]
        self._put_back(refused)
        return Retryable("some messages were refused") if refused else None

    async def _record(self, orders: Sequence[Order]) -> None:
        if orders:  # retried without end: what was sent must be recorded, however long the disk is full
            await retry(lambda: self._writer.carry_out(orders), attempts=None, cap_s=2.0, rng=self._rng)

    def _dispatch(self, job: Job, wait_s: float) -> Order:
        dispatch = job.image.dispatches + 1
        after_ms = self._book.recheck.after_dispatch_ms(dispatch, wait_s)
        return Order(job.state.id, c.Dispatch(index=job.image.index, dispatch=dispatch, recheck_after_ms=after_ms))

    def _put_back(self, jobs: Sequence[Job]) -> None:
        self._metrics.send_failures.inc(len(jobs))
        self._book.not_sent(jobs, self._now_ms())
