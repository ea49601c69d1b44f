"""Receives workers' replies from the replies queue, ten at a time, and passes them to the writer.

The replies of one receive are recorded in one transaction, and deleted once it is durable; after a crash in between the
queue redelivers them, which changes nothing. A message that is damaged, or is not a reply, is quarantined: counted and
moved to the dead-letter queue.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import structlog

from core import tracing
from core.context import Context
from core.errors import FATAL
from core.ports import JobQueue, Outgoing, Received, ReplyQueue
from core.results.reply_commands import Processing, Reply
from core.results.reply_effects import ReplyEffects
from core.results.reply_interpreter import ReplyInterpreter
from core.runtime.provisioning import Provisioning
from core.runtime.writer import Writer
from infra.retry import Backoff, Missing, Permanent, Retryable
from schema import fast, messages

_log = structlog.get_logger()
_LIMIT: Final = 10
_NOT_MADE: Final = "replies.queues_not_made"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplySource:
    """The replies queue, its name, and how to receive from it. `quarantine` is the dead-letter queue, for messages
    that are not replies; `visibility_s`: how long a reply stays hidden while it is being recorded.
    """

    queue: ReplyQueue
    quarantine: JobQueue
    name: str
    wait_s: int = 20
    visibility_s: int = 10


class _NotRecorded(Retryable):
    """The log has not taken the replies. The writer's trouble says why; the queue works."""


class ReplyConsumer:
    """Any number of `run`s may run concurrently."""

    def __init__(
        self,
        writer: Writer,
        source: ReplySource,
        interpreter: ReplyInterpreter,
        effects: ReplyEffects,
        provisioning: Provisioning,
        context: Context,
    ) -> None:
        self._writer = writer
        self._source = source
        self._queue = source.queue
        self._interpreter = interpreter
        self._effects = effects
        self._provisioning = provisioning
        self._failpoints = context.failpoints
        self._rng = context.rng
        self._metrics = context.metrics
        self.trouble = ""

    async def run(self) -> None:
        """Receive and record. Never returns."""
        backoff = Backoff(first_s=0.2, cap_s=5.0, rng=self._rng)
        await self._provisioning.try_ensure(_NOT_MADE)
        while True:
            try:
                received = await self._receive()
                if received:
                    await self._handle(received)
            except FATAL:
                raise
            except (Retryable, Permanent) as error:
                self._note(error)
                if isinstance(error, Missing):
                    await self._provisioning.try_ensure(_NOT_MADE)
                await backoff.pause()
            else:
                self.trouble = ""
                backoff.reset()

    async def _receive(self) -> Sequence[Received]:
        # After an error, poll briefly: core stays unready until this receive returns.
        wait_s = min(1, self._source.wait_s) if self.trouble else self._source.wait_s
        return await self._queue.receive(limit=_LIMIT, wait_s=wait_s, visibility_s=self._source.visibility_s)

    def _note(self, error: Retryable | Permanent) -> None:
        if isinstance(error, _NotRecorded):
            self.trouble = ""
            _log.warning("replies.not_recorded", reason=str(error))
        else:
            self.trouble = f"replies queue: {error}"
            _log.warning("replies.unreachable", reason=str(error))

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
        if foreign and (kept := await self._quarantine(foreign)):  # last, so that its failure delays no reply
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
        """Move messages to the dead-letter queue; returns those it accepted. The others are redelivered."""
        kept = await self._source.quarantine.send(
            [Outgoing(body=each.body, attributes={"darkroom.source": self._source.name}) for each in foreign]
        )
        taken = [each for each, accepted in zip(foreign, kept, strict=True) if accepted]
        self._metrics.quarantined.inc(len(taken))
        return taken

    async def _record(self, replies: Sequence[Reply], sources: Sequence[Received]) -> None:
        try:
            with ExitStack() as spans:
                if tracing.enabled():
                    for reply, source in zip(replies, sources, strict=True):
                        spans.enter_context(Processing(self._source.name, reply, source))
                results = await self._writer.carry_out([self._interpreter.order(reply) for reply in replies])
            await self._effects.follow(replies, results)
        except Retryable as error:
            raise _NotRecorded(str(error)) from error
