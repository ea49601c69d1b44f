"""The pieces of the delivery pipeline: bounded stages, permits for pictures that are to enter it, and its limits."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class DeliveryPermits:
    """Counts how many more pictures the pipeline takes: a permit is acquired on the GPU thread before a picture is
    decoded, and released when the encode stage takes it. Not an `asyncio.Semaphore`, which belongs to one event
    loop; the GPU thread, which must not block, only tries to acquire.
    """

    def __init__(self, permits: int) -> None:
        self._free = permits
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._freed = asyncio.Event()

    @property
    def available(self) -> bool:
        """Whether `try_acquire` would succeed now."""
        return self._free > 0

    def try_acquire(self) -> bool:
        """Takes one permit; False when there is none. Any thread."""
        with self._lock:
            if self._free <= 0:
                return False
            self._free -= 1
            return True

    def release(self) -> None:
        """Puts one permit back. Any thread."""
        with self._lock:
            self._free += 1
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._freed.set)

    async def wait(self) -> None:
        """Returns when there is a permit. One waiter at a time."""
        self._loop = asyncio.get_running_loop()
        while not self.available:
            self._freed.clear()  # before the second look: a release between the two sets it again
            if not self.available:
                await self._freed.wait()


def _nothing() -> None:
    pass


class Stage(Generic[T]):
    """A bounded queue and the number of tasks that work on it. `taken` is called as each item leaves the queue."""

    def __init__(
        self,
        name: str,
        handle: Callable[[T], Awaitable[None]],
        *,
        bound: int,
        workers: int,
        taken: Callable[[], None] = _nothing,
    ) -> None:
        self.name = name
        self.workers = workers
        self._handle = handle
        self._taken = taken
        self._queue: asyncio.Queue[T] = asyncio.Queue(bound)

    def depth(self) -> int:
        """Items that wait in the queue."""
        return self._queue.qsize()

    async def put(self, item: T) -> None:
        """Waits while the queue is full."""
        await self._queue.put(item)

    def put_now(self, item: T) -> None:
        """For callers that hold a permit. Raises asyncio.QueueFull without room."""
        self._queue.put_nowait(item)

    async def run(self) -> None:
        """Serves until cancelled; the worker runs `workers` of these."""
        while True:
            item = await self._queue.get()
            self._taken()
            await self._handle(item)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLimits:
    """Tasks and bounds of the delivery pipeline, in images."""

    encoders: int
    uploads: int
    queued: int
    undeleted: int
    settling: int = 32
    deleting: int = 32

    @property
    def behind(self) -> int:
        """Most images behind the GPU: those that fill the pipeline, and `undeleted` more to be answered or deleted."""
        return 2 * self.queued + self.encoders + self.uploads + self.undeleted
