"""The threads behind `ports.Threads`. All are daemons: a hung model must not keep the process from ending."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Work = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class _Thread(threading.Thread):
    """A type of its own, so that `left_behind` finds the worker's threads among those of libraries."""


def left_behind(wait_s: float = 1.0) -> bool:
    """Whether a thread is still running after `wait_s`, when all should have ended: it hangs in a model's library."""
    ours = [each for each in threading.enumerate() if isinstance(each, _Thread)]
    for each in ours:
        each.join(wait_s / len(ours))
    return any(each.is_alive() for each in ours)


class WorkerThreads:
    """`count` named threads that take work in order. The threads start with the first work.

    The queue of work is bounded by the callers: each awaits its result before it hands over more.
    """

    def __init__(self, name: str, count: int = 1) -> None:
        self._name = name
        self._count = count
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._started = False

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, or what it raised."""
        if not self._started:
            self._started = True
            for number in range(self._count):
                _Thread(target=self._serve, name=f"{self._name}-{number}", daemon=True).start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._work.put((loop, future, work))
        return await future

    def close(self) -> None:
        """Ends the threads after the work that is queued; does not wait for them."""
        for _ in range(self._count):
            self._work.put(None)

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            self._do(*item)
            del item  # otherwise this thread holds the last result until the next work comes

    @staticmethod
    def _do(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Any]", work: Callable[[], Any]) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = work()
        except BaseException as caught:  # noqa: BLE001  (handed to the awaiting task)
            error = caught

        def settle() -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        with contextlib.suppress(RuntimeError):  # the loop has closed, and the awaiting task with it
            loop.call_soon_threadsafe(settle)
