"""The line behind the GPU: encode, upload, reply, delete. Overlaps with the next batch; every queue is bounded.

The GPU loop puts pictures in and waits when the line is full: that is the back-pressure. Order for one image:
upload verified, reply accepted by the queue, message deleted.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker import encode
from worker.errors import BadOutput
from worker.finish import Finisher
from worker.metrics import Metrics
from worker.ports import Failpoints, Recorder, Threads
from worker.types import Encoded, Failed, Failure, Finished, Held, State, Uploaded
from worker.upload import Uploader
from worker.window import Window

T = TypeVar("T")


class Stage(Generic[T]):
    """A bounded queue and the number of tasks that work on it."""

    def __init__(self, name: str, handle: Callable[[T], Awaitable[None]], *, bound: int, workers: int) -> None:
        self.name = name
        self.workers = workers
        self._handle = handle
        self._queue: asyncio.Queue[T] = asyncio.Queue(bound)

    def depth(self) -> int:
        """Items that wait."""
        return self._queue.qsize()

    async def put(self, item: T) -> None:
        """Waits while the queue is full."""
        await self._queue.put(item)

    async def run(self) -> None:
        """For ever; the service runs `workers` of these."""
        while True:
            await self._handle(await self._queue.get())


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Tasks and bounds of the line."""

    encoders: int
    uploads: int
    queued: int
    settling: int = 32


class Line:
    """See the module's text."""

    def __init__(
        self,
        window: Window,
        threads: Threads,
        uploader: Uploader,
        finisher: Finisher,
        *,
        sizes: Sizes,
        metrics: Metrics,
        failpoints: Failpoints,
        recorder: Recorder,
    ) -> None:
        self._window = window
        self._threads = threads
        self._uploader = uploader
        self._metrics = metrics
        self._failpoints = failpoints
        self._recorder = recorder
        self._encode = Stage("encode", self._encoded, bound=sizes.queued, workers=sizes.encoders)
        self._upload = Stage("upload", self._uploaded, bound=sizes.queued, workers=sizes.uploads)
        self._settle = Stage("settle", finisher.finish, bound=max(64, sizes.queued), workers=sizes.settling)
        self.stages = (self._encode, self._upload, self._settle)

    async def picture(self, finished: Finished) -> None:
        """A picture leaves the GPU."""
        self._window.move(finished.held, State.FINISHING)
        await self._encode.put(finished)

    async def fail(self, failed: Failed) -> None:
        """An attempt gave no picture."""
        self._window.move(failed.held, State.FINISHING)
        await self._settle.put(failed)

    async def drop(self, held: Held) -> None:
        """Nobody wants it any more: only its message is left to delete."""
        self._metrics.dropped.labels(state=held.state.value).inc()
        self._window.move(held, State.FINISHING)
        await self._settle.put(held)

    async def _encoded(self, finished: Finished) -> None:
        held = finished.held
        if held.unwanted:
            return await self._settle.put(held)
        loop = asyncio.get_running_loop()
        await self._failpoints.reach("worker.decoded")
        began = loop.time()
        output_format = held.job.output_format
        try:
            data, digest = await self._threads.run(lambda: encode.encode(finished.picture, output_format))
        except BadOutput as error:
            return await self.fail(Failed(held=held, failure=Failure.BAD_OUTPUT, detail=str(error)))
        ended = loop.time()
        took = ended - began
        self._metrics.encode_seconds.observe(took)
        self._recorder("encode", held.id, began, ended)
        await self._failpoints.reach("worker.encoded")
        media = encode.content_type(output_format)
        return await self._upload.put(
            Encoded(finished=finished, data=data, sha256=digest, content_type=media, encode_s=took)
        )

    async def _uploaded(self, encoded: Encoded) -> None:
        held = encoded.finished.held
        outcome: Held | Uploaded = held if held.unwanted else await self._uploader.upload(encoded)
        await self._settle.put(outcome)
