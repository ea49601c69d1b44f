"""The loops of a service: each runs until the service stops it, and one that ends before that ends the service.

asyncio.TaskGroup ignores a child that returns or is cancelled. A service that has lost a loop in this way looks healthy
and does nothing; a service that exits is restarted by its supervisor. Any module may import this one: it needs asyncio
only.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

Loop = Callable[[], Coroutine[Any, Any, None]]


class LoopEnded(Exception):
    """A loop has ended without being stopped. The text names the loop and says how it ended."""


class Loops(asyncio.TaskGroup):
    """The task group of a service. Its loops may end once `stop` is called, or its block is left."""

    def __init__(self) -> None:
        super().__init__()
        self._ending = False
        self._started: list[asyncio.Task[None]] = []

    def run(self, name: str, loop: Loop, *, may_return: Callable[[], bool] = lambda: False) -> "asyncio.Task[None]":
        """Starts `loop` in a task called `name`. If it returns while `may_return()` is false, the group fails."""
        task = self.create_task(self._watched(name, loop, may_return), name=name)
        self._started.append(task)
        return task

    def stop(self) -> None:
        """Cancel all loops; leaving the block waits for them."""
        self._ending = True
        for task in self._started:
            task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True  # what left the block cancels the loops
        await super().__aexit__(kind, error, trace)

    async def _watched(self, name: str, loop: Loop, may_return: Callable[[], bool]) -> None:
        try:
            await loop()
        except asyncio.CancelledError as cancelled:
            if self._ending:
                raise
            self._ending = True
            raise LoopEnded(f"{name} ended (cancelled)") from cancelled
        except BaseException:
            self._ending = True  # before the group cancels the others for it
            raise
        if not (self._ending or may_return()):
            self._ending = True
            raise LoopEnded(f"{name} ended (returned)")
