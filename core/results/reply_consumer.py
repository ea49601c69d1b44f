"""Takes what workers say from the replies queue, ten at a time, and tells the writer.

The replies of one receive become one transaction, and are deleted once it is durable; a crash in between makes
the queue deliver them again, which changes nothing. A message that is not whole, or not ours, is quarantined:
counted, kept on the dead-letter queue, and out of the way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import structlog

from core import tracing
from core.domain import commands as c
from core.domain.events import Failure
from core.domain.recheck import RecheckPolicy
from core.domain.state import Generation
from core.domain.transaction import Order, Result
from core.errors import FATAL
from core.metrics import Metrics
from core.ports import Failpoints, JobQueue, Outgoing, Received, ReplyQueue
from core.results.object_cleanup import ObjectCleanup
from core.results.reply_commands import Processing, Reply, attempt_failed, kind, misfit, rendered, started
from core.runtime.estimates import Estimates
from core.runtime.model_reports import ModelReports
from core.runtime.worker_reports import Progress, Workers
from core.runtime.writer import Writer
from infra.retry import Missing, Permanent, Retryable, backoff_s
from schema import fast, messages

_log = structlog.get_logger()
_LIMIT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """How to receive. `visibility_s`: how long a reply stays hidden while it is being recorded."""

    queue: str
    wait_s: int = 20
    visibility_s: int = 10


class _NotRecorded(Retryable):
    """The log has not taken what the replies say. Why stands in the writer's trouble; the queue is well."""


class ReplyConsumer:
    """Any number of `run`s may work side by side. `new_token` gives the secret part of a public key. `look_again` has
    the objects of erased generations deleted once more, durably: a late reply means that a draft has come.
    """

    def __init__(
        self,
        writer: Writer,
        queue: ReplyQueue,
        dead: JobQueue,
        *,
        polling: Polling,
        recheck: RecheckPolicy,
        estimates: Estimates,
        progress: Progress,
        workers: Workers,
        reports: ModelReports,
        cleanup: ObjectCleanup,
        look_again: Callable[[Sequence[str]], Awaitable[None]],
        new_token: Callable[[], str],
        failpoints: Failpoints,
        heal: Callable[[], Awaitable[None]],
        rng: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._writer = writer
        self._queue = queue
        self._dead = dead
        self._polling = polling
        self._recheck = recheck
        self._estimates = estimates
        self._progress = progress
        self._workers = workers
        self._reports = reports
        self._cleanup = cleanup
        self._look_again = look_again
        self._new_token = new_token
        self._failpoints = failpoints
        self._heal = heal
        self._rng = rng
        self._metrics = metrics
        self.trouble = ""

    async def run(self) -> None:
        """Receive and record, for ever."""
        failures = 0
        await self._try_heal()
        while True:
            try:
                # After trouble a short poll: a long one would keep readiness off until its end.
                wait_s = min(1, self._polling.wait_s) if self.trouble else self._polling.wait_s
                received = await self._queue.receive(
                    limit=_LIMIT, wait_s=wait_s, visibility_s=self._polling.visibility_s
                )
                if received:
                    await self._handle(received)
                failures, self.trouble = 0, ""
            except FATAL:
                raise
            except (Retryable, Permanent) as error:
                recorded = not isinstance(error, _NotRecorded)
                self.trouble = f"replies queue: {error}" if recorded else ""
                _log.warning("replies.unreachable" if recorded else "replies.not_recorded", reason=str(error))
                if isinstance(error, Missing):
                    await self._try_heal()
                await asyncio.sleep(backoff_s(failures, first_s=0.2, cap_s=5.0, draw=self._rng()))
                failures += 1

    async def _try_heal(self) -> None:
        try:
            await self._heal()
        except (Retryable, Permanent) as error:
            _log.warning("replies.queues_not_made", reason=str(error))

    async def _handle(self, received: Sequence[Received]) -> None:
        replies: list[Reply] = []
        sources: list[Received] = []
        foreign: list[Received] = []
        for each in received:
            reply = self._decode(each)
            if reply is None:
                foreign.append(each)
            else:
                replies.append(reply)
                sources.append(each)
        if replies:
            await self._record(replies, sources)
            await self._failpoints.reach("core.before_reply_delete")
            await self._queue.delete([each.receipt for each in sources])
        if foreign and (kept := await self._quarantine(foreign)):  # last: it may fail, and holds up nobody else then
            await self._queue.delete([each.receipt for each in kept])

    def _decode(self, received: Received) -> Reply | None:
        try:
            message = messages.decode(received.body)
        except messages.BadMessage as error:
            _log.warning("reply.quarantined", reason=str(error), bytes=len(received.body))
            return None
        if isinstance(message, fast.ImageJob):
            _log.warning("reply.quarantined", reason="a job on the replies queue")
            return None
        return message

    async def _quarantine(self, foreign: Sequence[Received]) -> list[Received]:
        """Those that the dead-letter queue has taken; the others come again."""
        kept = await self._dead.send(
            [Outgoing(body=each.body, attributes={"darkroom.source": self._polling.queue}) for each in foreign]
        )
        taken = [each for each, accepted in zip(foreign, kept, strict=True) if accepted]
        self._metrics.quarantined.inc(len(taken))
        return taken

    async def _record(self, replies: Sequence[Reply], sources: Sequence[Received]) -> None:
        with ExitStack() as spans:
            if tracing.enabled():
                for reply, source in zip(replies, sources, strict=True):
                    spans.enter_context(Processing(self._polling.queue, reply, source))
            try:
                results = await self._writer.carry_out([self._order(reply) for reply in replies])
            except Retryable as error:
                raise _NotRecorded(str(error)) from error
        for reply, result in zip(replies, results, strict=True):
            self._follow_up(reply, result)
        try:
            await self._look_again([each.state.id for each in results if each.state is not None and each.state.erased])
        except Retryable as error:
            raise _NotRecorded(str(error)) from error

    def _follow_up(self, reply: Reply, result: Result) -> None:
        outcome = "unknown" if result.state is None else "recorded" if result.changed else "late"
        self._metrics.replies.labels(kind(reply), outcome).inc()
        ref = (reply.image.generation_id, reply.image.index)
        if isinstance(reply, fast.ImageStarted):
            if result.changed:
                self._progress.started(ref, reply.worker_id, reply.batch_size)
        else:
            self._workers.saw(reply.worker_id)
        if isinstance(reply, fast.ImageRendered) and not result.changed and result.state is not None:
            images = result.state.images
            won = images[ref[1]].rendered if ref[1] < len(images) else None
            if won is None or won.attempt_id != reply.attempt_id:
                self._cleanup.add(reply.temp_key)

    def _order(self, reply: Reply) -> Order:
        return Order(reply.image.generation_id, self._command(reply))

    def _command(self, reply: Reply) -> c.Command:
        state = self._writer.open.get(reply.image.generation_id)
        match reply:
            case fast.ImageStarted():
                work_s = self._estimates.work_s(state.spec) if state else 0.0
                return started(reply, self._recheck.after_start_ms(work_s, reply.batch_size))
            case fast.ImageRendered():
                wrong = misfit(reply, state.spec) if state else None
                return wrong or rendered(reply, self._new_token())
            case _:
                return attempt_failed(reply, self._verdict(reply, state))

    def _verdict(self, reply: fast.ImageAttemptFailed, state: Generation | None) -> c.Verdict:
        """What a refusal means depends on what the other workers list."""
        failure = Failure(int(reply.failure))
        if state is None:
            return c.Verdict.COUNT
        if failure in (Failure.MODEL_BROKEN, Failure.MODEL_AWAY):
            self._reports.refused(reply.worker_id, state.spec.model, failure, reply.detail)
        return self._reports.verdict(reply.worker_id, state.spec.model, failure)
