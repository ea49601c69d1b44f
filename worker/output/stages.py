"""The parts that the delivery pipeline is made of: bounded stages, places for pictures, and sizes in flight."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class Places:
    """How many pictures the line still takes: counted on the GPU thread as they are made, given back by the line."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._freed = asyncio.Event()

    @property
    def free(self) -> bool:
        """Whether `take` would succeed now."""
        return self._free > 0

    def take(self) -> bool:
        """One place; False when there is none. Any thread."""
        with self._lock:
            if self._free <= 0:
                return False
            self._free -= 1
            return True

    def give(self) -> None:
        """A taken place is free again. Any thread."""
        with self._lock:
            self._free += 1
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._freed.set)

    async def wait(self) -> None:
        """Until there is a place. One waiter at a time."""
        self._loop = asyncio.get_running_loop()
        while not self.free:
            self._freed.clear()
            if not self.free:
                await self._freed.wait()


def _nothing() -> None:
    pass


class Stage(Generic[T]):
    """A bounded queue and the number of tasks that work on it. `taken` is called whenever one takes an item."""

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
        """Items that wait."""
        return self._queue.qsize()

    async def put(self, item: T) -> None:
        """Waits while the queue is full."""
        await self._queue.put(item)

    def put_now(self, item: T) -> None:
        """For callers who know that there is room."""
        self._queue.put_nowait(item)

    async def run(self) -> None:
        """For ever; the service runs `workers` of these."""
        while True:
            item = await self._queue.get()
            self._taken()
            await self._handle(item)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Tasks and bounds of the line."""

    encoders: int
    uploads: int
    queued: int
    undeleted: int
    settling: int = 32
    deleting: int = 32

    @property
    def behind(self) -> int:
        """Images that may be behind the GPU: what fills the line, and those to be answered or deleted."""
        return 2 * self.queued + self.encoders + self.uploads + self.undeleted
