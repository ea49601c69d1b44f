"""Wires the parts of core together, for `app` to serve and simulations to drive. Knows ports and tuning, no adapter.

Lifecycle: `introduce()` and then `load()`, once each; `start(loops)`; `drain()` before the loops are stopped.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import structlog

from core.api.reader import Reader
from core.api.service import Service
from core.api.submission import SubmissionOrders
from core.api.submitter import Submitter
from core.api.waiters import Waiters
from core.api.worker_calls import WorkerCalls
from core.context import Context
from core.dispatch.dead_letter_consumer import DeadLetterConsumer
from core.dispatch.dispatcher import Dispatcher
from core.dispatch.image_book import ImageBook
from core.dispatch.in_flight import FlowControl
from core.dispatch.job_message import JobSender
from core.domain.fair_queue import FairQueue
from core.domain.recheck import RecheckPolicy
from core.domain.shares import ONE, caps
from core.erasure.eraser import Eraser
from core.erasure.object_deletions import ObjectDeletions
from core.erasure.retention import Retention
from core.metrics import Metrics
from core.ports import Ports
from core.results.object_cleanup import Cleanups, ObjectCleanup
from core.results.publisher import Publisher
from core.results.reply_consumer import ReplyConsumer, ReplySource
from core.results.reply_effects import ReplyEffects
from core.results.reply_interpreter import ReplyInterpreter
from core.runtime.estimates import Estimates
from core.runtime.expiry import Expiry
from core.runtime.model_reports import ModelReports
from core.runtime.note_updater import NoteUpdater
from core.runtime.prompt_cache import PromptCache
from core.runtime.provisioning import Provisioning
from core.runtime.running_clock import RunningClock
from core.runtime.worker_reports import Progress, Workers
from core.runtime.writer import Writer
from core.tuning import Tuning
from infra.loops import Loops

_log = structlog.get_logger()
_DRAIN_LOOK_S = 0.02
_SENDING_S = 5.0
"""How long a drain waits for the queue to accept the messages being sent; calls to an unreachable queue would outlast
any drain. A message that the queue has accepted and core has not recorded is sent again, which is harmless.
"""


class Core:
    """One core. The constructor does no I/O, and builds each part after those it depends on, the writer first."""

    def __init__(self, ports: Ports, tuning: Tuning, metrics: Metrics | None = None) -> None:
        self._ports = ports
        self._tuning = tuning
        self.metrics = metrics if metrics is not None else Metrics()
        self.clock = RunningClock()
        self._context = Context(
            metrics=self.metrics,
            failpoints=ports.failpoints,
            now_ms=self.clock.now_ms,
            wall_ms=ports.wall_ms,
            rng=ports.rng,
        )
        allowed = caps(tuning.backlog_cap, tuning.backlog_images)
        self.writer = Writer(ports.log, self._context, caps=allowed, durable=ports.durable)
        self._workers = Workers()
        self._reports = ModelReports(self._workers, now_ms=self.clock.now_ms)
        self._estimates = Estimates()
        self._prompts = PromptCache(ports.log, kept=tuning.backlog_cap)
        self._progress = Progress(self.writer.open, self._workers, visibility_s=tuning.visibility_s)
        self._expiry = Expiry(self.writer, self._context)
        self._note = NoteUpdater(ports.log, ports.notes, self._context)
        self._provisioning = Provisioning(ports.make, ports.temp, self._context)
        self._recheck = RecheckPolicy(visibility_s=tuning.visibility_s, cap_s=tuning.recheck_cap_s)
        self._images = ImageBook(
            self.writer.open,
            FairQueue(overtaking_s=tuning.overtaking_s),
            self._recheck,
            work_s=self._estimates.work_s,
            away=self._reports.away,
        )
        self._dispatcher = self._build_dispatcher()
        self._dead_letter_consumer = DeadLetterConsumer(
            self.writer, ports.dead_letters, self._provisioning, self._context, every_s=tuning.dead_letters_s
        )
        self._eraser = Eraser(self.writer, ports.log, ports.erasures, self._context)
        self._retention = Retention(ports.log, self._eraser, self._context, keep=tuning.keep)
        self._deletions = ObjectDeletions(
            ports.log, ports.public, ports.temp, self._context, looks_s=tuning.erasure_looks_s
        )
        self._cleanups = Cleanups(temp=ObjectCleanup(ports.temp), public=ObjectCleanup(ports.public))
        self._publisher = Publisher(
            self.writer, ports.temp, ports.public, self._cleanups, self._provisioning, self._context
        )
        self._replies = self._build_replies()
        self._waiters = Waiters(tuning.max_waiters)
        self.service = self._build_service()
        self._join()

    async def load(self) -> None:
        """Continue the open generations and the running time where the last process left them, and repeat erasures
        that a restored log has undone. Raises LogBroken.
        """
        # In this order: the clock starts before any part reads it. Erasures are repeated before open generations are
        # announced, so that no part works on an erased one. The dispatcher begins before that too: it gives workers
        # time to report; otherwise the images that they hold would count as overdue and be sent again.
        latest_ms = await self.writer.load()
        self.clock.start(max(latest_ms, self._ports.log.running_ms))
        self._reports.begin()
        await self._eraser.repeat_listed()
        self._dispatcher.begin()
        self.writer.announce_loaded()
        _log.info("core.loaded", open=len(self.writer.open), running_ms=self.clock.now_ms())

    async def introduce(self) -> None:
        """Compare the log with its note in the public bucket; for a new log, write that note, and retry until the
        bucket accepts it. Call before `load`. Raises LogUnusable when the note shows that this log must not continue.
        """
        await self._note.introduce()

    def start(self, loops: Loops) -> None:
        """Start every loop. A loop that ends, in whatever way, ends the service."""
        endless: list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = [
            ("writer", self.writer.run),
            ("clock", lambda: self.clock.persist(self._ports.log, self.writer.note_save)),
            ("note", self._note.run),
            ("surroundings", self._provisioning.run),
            ("dispatcher", self._dispatcher.run),
            ("expiry", self._expiry.run),
            ("undelivered", self._dead_letter_consumer.run),
            ("eraser", self._eraser.run),
            ("retention", self._retention.run),
            ("deletions", self._deletions.run),
            ("leftovers.drafts", self._cleanups.temp.run),
            ("leftovers.copies", self._cleanups.public.run),
        ]
        endless += [(f"replies.{number}", self._replies.run) for number in range(self._tuning.reply_consumers)]
        endless += [(f"publisher.{number}", self._publisher.run) for number in range(self._tuning.publishers)]
        for name, loop in endless:
            loops.run(f"core.{name}", loop)

    def reasons(self) -> Sequence[str]:
        """Why core is not ready; empty when it is."""
        parts = (
            self.writer,
            self.clock,
            self._note,
            self._eraser,
            self._provisioning,
            self._dispatcher,
            self._replies,
            self._publisher,
        )
        return list(dict.fromkeys(part.trouble for part in parts if part.trouble))

    async def drain(self, deadline_s: float) -> None:
        """Refuse new calls, and wait until everything accepted is durable, for at most `deadline_s`."""
        self.service.stop()
        self._dispatcher.stop()
        try:
            async with asyncio.timeout(deadline_s):
                with suppress(TimeoutError):  # the dispatcher first: the writer records what it has sent
                    async with asyncio.timeout(_SENDING_S):
                        while not self._dispatcher.idle:  # noqa: ASYNC110
                            await asyncio.sleep(_DRAIN_LOOK_S)
                while not self.writer.idle:  # noqa: ASYNC110
                    await asyncio.sleep(_DRAIN_LOOK_S)
                await self._note.finish()
        except TimeoutError:
            _log.warning("core.drain_cut_short")

    def _build_dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self.writer,
            JobSender(self._ports.jobs, self._prompts, self._tuning.jobs_queue),
            self._images,
            FlowControl(self._workers.batch_sizes, fixed=self._tuning.runway),
            self._estimates,
            self._provisioning,
            self._context,
        )

    def _build_replies(self) -> ReplyConsumer:
        ports, tuning = self._ports, self._tuning
        source = ReplySource(
            queue=ports.replies,
            quarantine=ports.quarantine,
            name=tuning.replies_queue,
            wait_s=tuning.reply_wait_s,
            visibility_s=tuning.reply_visibility_s,
        )
        interpreter = ReplyInterpreter(
            self.writer.open,
            recheck=self._recheck,
            estimates=self._estimates,
            reports=self._reports,
            new_token=ports.new_token,
        )
        effects = ReplyEffects(
            progress=self._progress,
            workers=self._workers,
            temp_cleanup=self._cleanups.temp,
            late=self._deletions,
            metrics=self.metrics,
        )
        return ReplyConsumer(self.writer, source, interpreter, effects, self._provisioning, self._context)

    def _build_service(self) -> Service:
        reader = Reader(self.writer, self._ports.log, self._prompts, self._progress, self._images)
        orders = SubmissionOrders(self._estimates, new_salt=self._ports.new_salt, rng=self._ports.rng)
        submitter = Submitter(self.writer, orders, self._prompts, reader, self.metrics)
        workers = WorkerCalls(self._progress, self._reports, self._dispatcher)
        return Service(self.writer, reader, submitter, workers, self._eraser, self._waiters)

    def _join(self) -> None:
        """Subscribe the listeners: first those that keep state, since those that act on a change read it from them."""
        for listener in (self._estimates, self._prompts, self._progress, self._expiry, self._dispatcher):
            self.writer.listen(listener.on_changes)
        self._reports.listen(self._dispatcher.served)
        self.writer.listen(self._publisher.on_changes)
        self.writer.listen(self._deletions.on_changes)
        self.writer.listen(self.service.on_changes)
        counts = self.metrics.backlog
        counts.labels("pending").set_function(lambda: self._images.counts["pending"])
        counts.labels("queued").set_function(lambda: self._images.counts["queued"])
        counts.labels("started").set_function(lambda: self._images.counts["started"])
        counts.labels("unpublished").set_function(lambda: self._publisher.waiting)
        counts.labels("unfinished").set_function(lambda: self.writer.usage.total.images)
        self.metrics.backlog_charge.set_function(lambda: self.writer.usage.total.charge / ONE)
        self.metrics.tenants.set_function(lambda: self.writer.usage.active)
        self.metrics.log_tail.set_function(self._ports.log_tail_bytes)
        self.metrics.running_s.set_function(lambda: self.clock.now_ms() / 1000)
        self.metrics.workers.set_function(lambda: len(self._workers.batch_sizes()))
        self.metrics.waiters.set_function(self._waiters.__len__)
