"""What becomes of one received message: a job in the window, a duplicate, a refusal, or a quarantined message.

A corrupt or foreign message is quarantined: counted, logged without content, its bytes and text attributes sent to the
dead-letter queue, and deleted once that queue has accepted it. No message stops the receiver.
"""

import asyncio
from dataclasses import dataclass

import structlog

from schema.messages import BadMessage
from worker.context import Context
from worker.engines.contract import BatchKey
from worker.engines.errors import Unsupported
from worker.gpu.models.model_faults import refusal_of
from worker.gpu.models.model_pool import ModelPool
from worker.holding.leases import best_effort
from worker.holding.types import Failure, Job, State
from worker.holding.window import Offer, Window
from worker.messages import parse
from worker.output.delivery import Delivery
from worker.ports import Received, Reply, ReplyQueue

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of a message. `deletable`: it is no longer needed. `refused`: it is a job that this worker cannot
    render; its message is held until core has the reply.
    """

    deletable: bool
    refused: bool = False


class JobIntake:
    """Called by the receiver for each message. A job that has been received `suspect_receives` times runs solo."""

    def __init__(
        self,
        context: Context,
        window: Window,
        models: ModelPool,
        delivery: Delivery,
        quarantine: ReplyQueue,
        *,
        suspect_receives: int,
    ) -> None:
        self._context = context
        self._window = window
        self._models = models
        self._delivery = delivery
        self._quarantine_queue = quarantine
        self._suspect_receives = suspect_receives

    async def take(self, message: Received) -> Taken:
        """Puts a valid job into the window, refuses a job that cannot be rendered, and quarantines anything else."""
        if message.receive_count > 1:
            self._context.metrics.redelivered.inc()
        try:
            job = parse(message.body, message.attributes, suspect=message.receive_count >= self._suspect_receives)
        except BadMessage as error:
            return Taken(deletable=await self._quarantine(message, str(error)))
        await self._context.failpoints.reach("worker.validated")
        try:
            key = self._models.key(job.render)
        except Unsupported as error:
            return await self._refuse(message, job, *refusal_of(error))
        fault = self._models.fault(job.render.model)
        if fault is not None:
            return await self._refuse(message, job, fault.failure, fault.reason)
        return Taken(deletable=self._offer(message, job, key) is Offer.SETTLED)

    def _offer(self, message: Received, job: Job, key: BatchKey) -> Offer:
        now_s = asyncio.get_running_loop().time()
        age_s = max(0.0, self._context.wall_ms() / 1000 - job.requested_at_s) if job.requested_at_s else 0.0
        offer = self._window.offer(
            job, key, message_id=message.message_id, receipt=message.receipt, now_s=now_s, existed_s=now_s - age_s
        )
        if offer is not Offer.HELD:
            self._context.metrics.duplicates.labels(kind=offer.value).inc()
        return offer

    async def _refuse(self, message: Received, job: Job, failure: Failure, reason: str) -> Taken:
        """Held like a job, under an empty batch key, so that its message stays hidden until core has the reply."""
        offer = self._offer(message, job, ())
        held = self._window.get(job.render.id)
        if held is not None and held.state is State.WAITING and not held.key:
            await self._delivery.refuse(held, failure, reason)
        return Taken(deletable=offer is Offer.SETTLED, refused=True)

    async def _quarantine(self, message: Received, reason: str) -> bool:
        """Whether the dead-letter queue has the message now."""
        self._context.metrics.quarantined.inc()
        _log.warning("message.quarantined", message_id=message.message_id, bytes=len(message.body), reason=reason)
        copy = Reply(body=message.body, attributes=message.attributes)
        accepted = await best_effort(self._context, "quarantine", lambda: self._quarantine_queue.send([copy]))
        return bool(accepted and accepted[0])
