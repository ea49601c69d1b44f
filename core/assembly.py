"""All parts of core, joined: what `app` serves and a simulation drives. Knows ports and figures, no adapter.

Life: `await load()` once, then `start(loops)`; `drain()` before the loops are stopped.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from core.api.service import Service
from core.api.submission import Admission
from core.dispatch.dead_letter_consumer import DeadLetterConsumer
from core.dispatch.dispatcher import Dispatcher
from core.dispatch.in_flight import Policy
from core.domain.decide import Now
from core.domain.fair_queue import FairQueue
from core.domain.recheck import RecheckPolicy
from core.domain.shares import ONE, caps
from core.erasure.eraser import Eraser
from core.erasure.object_deletions import LOOKS_S, ObjectDeletions
from core.erasure.retention import Keep, Retention
from core.metrics import Metrics
from core.ports import (
    Ports,
)
from core.results.object_cleanup import ObjectCleanup
from core.results.publisher import Publisher
from core.results.reply_consumer import Polling, ReplyConsumer
from core.runtime.estimates import Estimates
from core.runtime.expiry import Expiry
from core.runtime.model_reports import ModelReports
from core.runtime.note_updater import NoteUpdater
from core.runtime.prompt_cache import PromptCache
from core.runtime.provisioning import Provisioning
from core.runtime.running_clock import RunningClock
from core.runtime.worker_reports import Progress, Workers
from core.runtime.writer import Writer
from infra.loops import Loops

_log = structlog.get_logger()
_DRAIN_LOOK_S = 0.02
_SENDING_S = 5.0
"""For the queue to take what is being sent. While it fails its calls are held back for longer than any drain; what it
has taken and core has not recorded is sent again, which is harmless.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The figures; `config.CoreSettings` says what each means."""

    jobs_queue: str
    replies_queue: str
    visibility_s: float
    backlog_cap: int = 10_000
    backlog_images: int = 0
    runway: int = 0
    recheck_cap_s: float = 900.0
    overtaking_s: float = 30.0
    reply_consumers: int = 2
    reply_wait_s: int = 20
    reply_visibility_s: int = 10
    dead_letters_s: float = 15.0
    publishers: int = 16
    max_waiters: int = 10_000
    keep: Keep = Keep()  # noqa: RUF009  (immutable)
    erasure_looks_s: Sequence[float] = LOOKS_S


class Core:
    """Built without I/O."""

    def __init__(self, ports: Ports, tuning: Tuning, metrics: Metrics | None = None) -> None:
        self._ports = ports
        self._tuning = tuning
        self.metrics = metrics if metrics is not None else Metrics()
        self.clock = RunningClock()
        allowed = caps(tuning.backlog_cap, tuning.backlog_images)
        self.writer = Writer(
            ports.log, ports.log, now=self._now, metrics=self.metrics, caps=allowed, durable=ports.durable
        )
        self._workers = Workers()
        self._reports = ModelReports(self._workers, now_ms=self.clock.now_ms)
        self._estimates = Estimates()
        self._prompts = PromptCache(ports.log, kept=tuning.backlog_cap)
        self._progress = Progress(self.writer.open, self._workers, visibility_s=tuning.visibility_s)
        self._expiry = Expiry(self.writer, now_ms=self.clock.now_ms, metrics=self.metrics)
        self._temp_cleanup = ObjectCleanup(ports.temp)
        self._public_cleanup = ObjectCleanup(ports.public)
        self._note = NoteUpdater(ports.log, ports.notes, wall_ms=ports.wall_ms, rng=ports.rng)
        self._provisioning = Provisioning(ports.make, ports.temp, rng=ports.rng)
        recheck = RecheckPolicy(visibility_s=tuning.visibility_s, cap_s=tuning.recheck_cap_s)
        self._eraser = self._build_eraser()
        self._retention = Retention(
            ports.log,
            self._eraser,
            keep=tuning.keep,
            now_ms=self.clock.now_ms,
            wall_ms=ports.wall_ms,
            rng=ports.rng,
        )
        self._deletions = self._build_deletions()
        self._dispatcher = self._build_dispatcher(recheck)
        self._replies = self._build_replies(recheck)
        self._dead_letter_consumer = self._build_undelivered()
        self._publisher = Publisher(
            self.writer,
            ports.temp,
            ports.public,
            temp_cleanup=self._temp_cleanup,
            public_cleanup=self._public_cleanup,
            failpoints=ports.failpoints,
            heal=self._provisioning.heal,
            rng=ports.rng,
            metrics=self.metrics,
        )
        self.service = Service(
            self.writer,
            ports.log,
            admission=Admission(self._estimates, new_salt=ports.new_salt, rng=ports.rng),
            prompts=self._prompts,
            progress=self._progress,
            reports=self._reports,
            dispatcher=self._dispatcher,
            eraser=self._eraser,
            metrics=self.metrics,
            max_waiters=tuning.max_waiters,
        )
        self._join()

    async def load(self) -> None:
        """Take up the open generations and the running time where the last life left them, and erase again what an
        older log has brought back. Raises LogBroken.
        """
        latest_ms = await self.writer.load()
        self.clock.start(max(latest_ms, self._ports.log.running_ms))
        self._reports.begin()
        await self._eraser.take_over()
        self._dispatcher.take_over()
        self.writer.announce_loaded()
        _log.info("core.loaded", open=len(self.writer.open), running_ms=self.clock.now_ms())

    async def introduce(self) -> None:
        """Before `load`: see that nothing accepted can be taken for the work of no log. Waits for the public bucket
        where the log was just begun. Raises LogUnusable when another log is noted there.
        """
        await self._note.introduce()

    def start(self, loops: Loops) -> None:
        """Start every loop. One that ends, in whatever way, ends the service."""
        endless: list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = [
            ("writer", self.writer.run),
            ("clock", lambda: self.clock.persist(self._ports.log, self.writer.saved)),
            ("note", self._note.run),
            ("surroundings", self._provisioning.run),
            ("dispatcher", self._dispatcher.run),
            ("expiry", self._expiry.run),
            ("undelivered", self._dead_letter_consumer.run),
            ("eraser", self._eraser.run),
            ("retention", self._retention.run),
            ("deletions", self._deletions.run),
            ("leftovers.drafts", self._temp_cleanup.run),
            ("leftovers.copies", self._public_cleanup.run),
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
        """Refuse new calls, and let what has been taken in become durable."""
        self.service.stop()
        self._dispatcher.stop()
        try:
            async with asyncio.timeout(deadline_s):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SENDING_S):
                        while not self._dispatcher.idle:  # noqa: ASYNC110
                            await asyncio.sleep(_DRAIN_LOOK_S)
                while not self.writer.idle:  # noqa: ASYNC110
                    await asyncio.sleep(_DRAIN_LOOK_S)
                await self._note.finish()
        except TimeoutError:
            _log.warning("core.drain_cut_short")

    def _now(self) -> Now:
        return Now(at_ms=self._ports.wall_ms(), running_ms=self.clock.now_ms())

    def _build_dispatcher(self, recheck: RecheckPolicy) -> Dispatcher:
        return Dispatcher(
            self.writer,
            self._ports.jobs,
            self._prompts,
            policy=Policy(queue=self._tuning.jobs_queue, recheck=recheck, runway=self._tuning.runway),
            backlog=FairQueue(overtaking_s=self._tuning.overtaking_s),
            now_ms=self.clock.now_ms,
            estimates=self._estimates,
            workers=self._workers,
            away=self._reports.away,
            failpoints=self._ports.failpoints,
            heal=self._provisioning.heal,
            rng=self._ports.rng,
            metrics=self.metrics,
        )

    def _build_eraser(self) -> Eraser:
        return Eraser(
            self.writer,
            self._ports.log,
            self._ports.erasures,
            failpoints=self._ports.failpoints,
            rng=self._ports.rng,
            metrics=self.metrics,
        )

    def _build_deletions(self) -> ObjectDeletions:
        return ObjectDeletions(
            self._ports.log,
            self._ports.public,
            self._ports.temp,
            looks_s=self._tuning.erasure_looks_s,
            now_ms=self.clock.now_ms,
            failpoints=self._ports.failpoints,
            rng=self._ports.rng,
            metrics=self.metrics,
        )

    def _build_replies(self, recheck: RecheckPolicy) -> ReplyConsumer:
        tuning = self._tuning
        return ReplyConsumer(
            self.writer,
            self._ports.replies,
            self._ports.quarantine,
            polling=Polling(
                queue=tuning.replies_queue, wait_s=tuning.reply_wait_s, visibility_s=tuning.reply_visibility_s
            ),
            recheck=recheck,
            estimates=self._estimates,
            progress=self._progress,
            workers=self._workers,
            reports=self._reports,
            cleanup=self._temp_cleanup,
            look_again=self._deletions.again,
            new_token=self._ports.new_token,
            failpoints=self._ports.failpoints,
            heal=self._provisioning.heal,
            rng=self._ports.rng,
            metrics=self.metrics,
        )

    def _build_undelivered(self) -> DeadLetterConsumer:
        return DeadLetterConsumer(
            self.writer,
            self._ports.dead_letters,
            every_s=self._tuning.dead_letters_s,
            failpoints=self._ports.failpoints,
            heal=self._provisioning.heal,
            rng=self._ports.rng,
            metrics=self.metrics,
        )

    def _join(self) -> None:
        """Who hears of changes, in this order: what is known first, then who acts on it."""
        for listener in (self._estimates, self._prompts, self._progress, self._expiry, self._dispatcher):
            self.writer.listen(listener.on_changes)
        self._reports.served = self._dispatcher.served
        self.writer.listen(self._publisher.on_changes)
        self.writer.listen(self._deletions.on_changes)
        self.writer.listen(self.service.on_changes)
        counts = self.metrics.backlog
        counts.labels("pending").set_function(lambda: self._dispatcher.counts["pending"])
        counts.labels("queued").set_function(lambda: self._dispatcher.counts["queued"])
        counts.labels("started").set_function(lambda: self._dispatcher.counts["started"])
        counts.labels("unpublished").set_function(lambda: self._publisher.waiting)
        counts.labels("unfinished").set_function(lambda: self.writer.usage.total.images)
        self.metrics.backlog_charge.set_function(lambda: self.writer.usage.total.charge / ONE)
        self.metrics.tenants.set_function(lambda: self.writer.usage.active)
        self.metrics.log_tail.set_function(self._ports.log_tail_bytes)
        self.metrics.running_s.set_function(lambda: self.clock.now_ms() / 1000)
        self.metrics.workers.set_function(lambda: len(self._workers.batches()))
