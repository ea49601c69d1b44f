"""The loops of a service: each runs until the service stops it, and one that ends before that ends the service.

asyncio.TaskGroup takes no notice of a child that returns or ends as cancelled. A service that has lost a loop in that
way looks healthy and does nothing; one that ends is started again. Anybody may import this module: it knows asyncio.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

Loop = Callable[[], Coroutine[Any, Any, None]]


class LoopEnded(Exception):
    """A loop has ended that was not stopped. The text says which, and how."""


class Loops(asyncio.TaskGroup):
    """The task group of a service. Its loops may end once `stop` is called, or its block is left."""

    def __init__(self) -> None:
        super().__init__()
        self._ending = False
        self._started: list[asyncio.Task[None]] = []

    def run(self, name: str, loop: Loop, *, may_return: Callable[[], bool] = lambda: False) -> "asyncio.Task[None]":
        """Starts `loop`. When it returns, `may_return` says whether that is allowed."""
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
