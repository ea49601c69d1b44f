"""The pipeline behind the GPU: encode, upload, reply, delete. Overlaps with the next batch; every queue is bounded.

The GPU loop puts pictures in and waits while the pipeline is full, which is backpressure. Order for one image: upload
verified, reply accepted by the queue, message deleted. The settle and deletion queues are long, since their items hold
no pixels and a reply must not wait for deletions. The receiver bounds them: it stops at `DeliveryLimits.behind` images
that have left the GPU.
"""

import asyncio

from worker.context import Context
from worker.engines.errors import BadOutput
from worker.holding.types import Encoded, Failed, Failure, Finished, Held, State, Uploaded
from worker.holding.window import Window
from worker.output import encode
from worker.output.settling import Settler
from worker.output.stages import DeliveryLimits, DeliveryPermits, Stage
from worker.output.uploader import Uploader
from worker.ports import Threads

SETTLE_BOUND = 16_384
"""More images than the worker ever holds, so that a put never waits. At the largest settings: 4,096 received ahead of
the GPU, 8,512 being encoded or uploaded (2 × 4,096 queued, 64 encoders, 256 uploads), 1,024 to be answered or deleted;
the other 2,752 are for the batch on the GPU.
"""


class Delivery:
    """Takes pictures and failures from the GPU loop, and settles each."""

    def __init__(
        self,
        context: Context,
        window: Window,
        threads: Threads,
        uploader: Uploader,
        settler: Settler,
        *,
        limits: DeliveryLimits,
    ) -> None:
        self._context = context
        self._window = window
        self._threads = threads
        self._uploader = uploader
        self._settler = settler
        self.permits = DeliveryPermits(limits.queued)
        self._encode = Stage(
            "encode", self._run_encode, bound=limits.queued, workers=limits.encoders, taken=self.permits.release
        )
        self._upload = Stage("upload", self._run_upload, bound=limits.queued, workers=limits.uploads)
        self._settle = Stage("settle", self._run_settle, bound=SETTLE_BOUND, workers=limits.settling)
        self._deletion = Stage("deletion", settler.delete, bound=SETTLE_BOUND, workers=limits.deleting)
        self.stages = (self._encode, self._upload, self._settle, self._deletion)

    async def wait_for_permit(self) -> None:
        """Returns when a permit is free, without acquiring it."""
        await self.permits.wait()

    def deliver_now(self, finished: Finished) -> None:
        """Takes a picture from the GPU; its permit has been acquired. For callers that cannot wait."""
        if self._leave_gpu(finished.held):
            self._encode.put_now(finished)
        else:
            self.permits.release()

    def fail_now(self, failed: Failed) -> None:
        """An attempt on the GPU gave no picture: report the failure. For callers that cannot wait."""
        if self._leave_gpu(failed.held):
            self._settle.put_now(failed)

    def drop_now(self, held: Held) -> None:
        """An image on the GPU is no longer wanted: its message is deleted without a reply. For callers that cannot
        wait.
        """
        self._context.metrics.dropped.labels(state=held.state.value).inc()
        self._window.mark_unwanted(held)
        if self._leave_gpu(held):
            self._settle.put_now(held)

    def _leave_gpu(self, held: Held) -> bool:
        """Moves the image to FINISHING. False for one that the shutdown has answered already, or is about to."""
        if held.state in (State.FINISHING, State.SETTLED, State.GONE):
            return False
        self._window.move(held, State.FINISHING)
        return True

    async def fail(self, failed: Failed) -> None:
        """Report that an attempt gave no picture, on the GPU or behind it. Does nothing for an answered image."""
        if failed.held.state not in (State.SETTLED, State.GONE):
            self._window.move(failed.held, State.FINISHING)
            await self._settle.put(failed)

    async def refuse(self, held: Held, failure: Failure, reason: str) -> None:
        """Report to core why this worker does not render the image; its message is deleted once that is accepted."""
        self._window.begin_attempt(held, self._context.new_id("att"), State.FINISHING)
        await self.fail(Failed(held=held, failure=failure, detail=reason))

    async def drop(self, held: Held) -> None:
        """Drop a waiting image that is no longer wanted: its message is deleted without a reply."""
        self._context.metrics.dropped.labels(state=held.state.value).inc()
        self._window.mark_unwanted(held)
        self._window.move(held, State.FINISHING)
        await self._settle.put(held)

    async def _run_encode(self, finished: Finished) -> None:
        held = finished.held
        if held.unwanted:
            return await self._settle.put(held)
        loop = asyncio.get_running_loop()
        await self._context.failpoints.reach("worker.decoded")
        began = loop.time()
        output_format = held.job.output_format
        try:
            data, digest = await self._threads.run(lambda: encode.encode(finished.picture, output_format))
        except BadOutput as error:
            return await self.fail(Failed(held=held, failure=Failure.BAD_OUTPUT, detail=str(error)))
        ended = loop.time()
        took = ended - began
        self._context.metrics.encode_seconds.observe(took)
        self._context.recorder("encode", held.id, began, ended)
        await self._context.failpoints.reach("worker.encoded")
        media = encode.content_type(output_format)
        return await self._upload.put(
            Encoded(held=held, origin=finished.origin, data=data, sha256=digest, content_type=media, encode_s=took)
        )

    async def _run_upload(self, encoded: Encoded) -> None:
        await self._settle.put(await self._uploader.upload(encoded) or encoded.held)

    async def _run_settle(self, item: Uploaded | Failed | Held) -> None:
        settled = await self._settler.settle(item)
        if settled is not None:
            await self._deletion.put(settled)
