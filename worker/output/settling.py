"""The last steps of an image: its reply is sent, and its message deleted only after the reply was accepted.

A worker that dies between the two leaves the message to be redelivered, and core drops the second result.
"""

import asyncio
from collections.abc import Sequence

import structlog

from worker import messages as replies
from worker import tracing
from worker.context import Context
from worker.holding.leases import Leases
from worker.holding.types import Batch, Failed, Held, Settled, State, Uploaded
from worker.holding.window import Window
from worker.output.call_batching import CallBatcher
from worker.ports import Reply

_log = structlog.get_logger()


class Settler:
    """Sends every reply of the worker (started, rendered, failed), and deletes the messages of settled images."""

    def __init__(
        self,
        context: Context,
        window: Window,
        outbox: CallBatcher[Reply],
        deletions: CallBatcher[str],
        leases: Leases,
        *,
        queue: str,
    ) -> None:
        self._context = context
        self._window = window
        self._outbox = outbox
        self._deletions = deletions
        self._queue = queue
        self._leases = leases

    async def started(self, batch: Batch) -> None:
        """Returns once the reply queue has accepted a `started` for every member."""
        bodies = [(held, replies.started(batch, held, self._context.worker_id)) for held in batch.members]
        await self._send(bodies, "started")

    async def settle(self, item: Uploaded | Failed | Held) -> Settled | None:
        """Returns once the reply is accepted; None for an image that the shutdown has answered already. A bare Held is
        an image that was dropped: it needs no reply.
        """
        held = self._held(item)
        if held.state in (State.SETTLED, State.GONE):
            return None
        began = asyncio.get_running_loop().time()
        if isinstance(item, Uploaded):
            await self._send([(held, replies.rendered(item, self._context.worker_id))], "rendered")
            facts = item.origin.facts
            self._context.metrics.rendered.labels(engine=facts.engine, model=facts.model).inc()
            _log.info("image.rendered", **_about(held), model=facts.model, **_times(item))
        elif isinstance(item, Failed):
            await self._send([(held, replies.attempt_failed(item, self._context.worker_id))], "attempt_failed")
            self._context.metrics.failed.labels(failure=item.failure.name.lower()).inc()
            _log.warning("attempt.failed", **_about(held), failure=item.failure.name, detail=item.detail)
        await self._context.failpoints.reach("worker.reply_sent")
        newer_receipts = self._window.settle(held, picture=isinstance(item, Uploaded))
        await self._leases.give_back(newer_receipts)
        return Settled(held=held, began_s=began, error=item.detail if isinstance(item, Failed) else "")

    async def delete(self, settled: Settled) -> None:
        """Deletes all of the image's messages, redelivered ones included, then releases the image from the window."""
        held = settled.held
        await self._deletions.submit_all(list(held.receipts.values()))
        await self._context.failpoints.reach("worker.deleted")
        self._context.recorder("reply", held.id, settled.began_s, asyncio.get_running_loop().time())
        tracing.end(held.span, settled.error)
        self._window.release(held)

    @staticmethod
    def _held(item: Uploaded | Failed | Held) -> Held:
        match item:
            case Uploaded() | Failed():
                return item.held
            case Held():
                return item

    async def _send(self, bodies: Sequence[tuple[Held, bytes]], kind: str) -> None:
        spans = [tracing.send(held, self._queue, kind) for held, _ in bodies]
        outgoing = [
            Reply(body=body, attributes=tracing.carrier(span, held.job.trace))
            for (held, body), span in zip(bodies, spans, strict=True)
        ]
        try:
            await self._outbox.submit_all(outgoing)
        finally:
            for span in spans:
                tracing.end(span)


def _about(held: Held) -> dict[str, object]:
    """The fields of a log line that identify an image."""
    image = held.job.image
    return {
        "generation": image.generation_id,
        "index": image.index,
        "attempt": held.attempt_id,
        "dispatch": held.job.dispatch,
    }


def _times(item: Uploaded) -> dict[str, object]:
    """The image's times in milliseconds; `batch`: how many images were rendered together, itself included."""
    held, origin = item.held, item.origin
    return {
        "batch": len(origin.batch_members),
        "wait_ms": round(held.wait_s * 1000),
        "gpu_ms": round(held.gpu_s * 1000),
        "decode_ms": round(origin.decode_s * 1000),
        "encode_ms": round(item.encode_s * 1000),
        "upload_ms": round(item.upload_s * 1000),
    }
