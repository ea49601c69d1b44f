"""Coalesces many items into few calls: the items that wait when a call returns are sent together in the next one.

There is no timer: an item is sent at once if a sender is free, and the busier the service, the larger the batches.
One submission per call costs 5.7 times as much through grpclib. Each batch takes items of the owners in turn; when the
queue is full, the owner with most items gives one up, so that the load of one owner neither delays another nor gets it
refused. Generic: knows no gRPC and no HTTP.
"""

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NoReturn, TypeVar

from gateway.errors import Broken, GatewayError, Unavailable
from infra.fairness import Full, RoundRobinQueue

I = TypeVar("I")  # noqa: E741  (an item)
R = TypeVar("R")


class Coalescer(Generic[I, R]):
    """Sends items through `call`, which returns one result per item, in their order.

    `call` is given the loop time by which it must return. An item is answered within `timeout_s`; one that has waited
    half of that without being sent is answered Unavailable and never sent. So every call has at least the other half:
    with less time, core would often accept a submission whose client has already been answered that it failed.
    """

    def __init__(
        self,
        call: Callable[[Sequence[I], float], Awaitable[Sequence[R]]],
        *,
        max_items: int,
        max_waiting: int,
        timeout_s: float,
    ) -> None:
        self._call = call
        self._max_items = max_items
        self._timeout_s = timeout_s
        self._waiting: RoundRobinQueue[tuple[I, Future[R], float]] = RoundRobinQueue(max_waiting)
        self._arrived = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Items that no call has taken yet."""
        return len(self._waiting)

    async def put(self, item: I, owner: str) -> R:
        """The result of `item`. A caller cancelled before its item is sent withdraws it. Raises Unavailable, Broken."""
        loop = asyncio.get_running_loop()
        result: Future[R] = loop.create_future()
        try:
            displaced = self._waiting.push(owner, (item, result, loop.time() + self._timeout_s))
        except Full:
            raise _crowded() from None
        if displaced is not None and not displaced[1].done():
            displaced[1].set_exception(_crowded())
        self._arrived.set()
        return await result

    async def run(self) -> NoReturn:
        """One sender. Two should run, so that one batch is on the wire while core commits the other."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            batch = self._take(loop.time())
            if batch:
                await self._send(batch)

    def _take(self, now: float) -> list[tuple[I, Future[R], float]]:
        batch: list[tuple[I, Future[R], float]] = []
        waiting = self._waiting
        while len(waiting) and len(batch) < self._max_items:
            entry = waiting.pop()
            if entry[1].done():
                continue
            if entry[2] - now < self._timeout_s / 2:
                entry[1].set_exception(Unavailable())
                continue
            batch.append(entry)
        if not len(waiting):
            self._arrived.clear()
        return batch

    async def _send(self, batch: list[tuple[I, Future[R], float]]) -> None:
        try:
            results = await self._call([item for item, _, _ in batch], min(deadline for _, _, deadline in batch))
            if len(results) != len(batch):
                raise Broken(f"{len(results)} results for {len(batch)} items")
        except GatewayError as error:
            self._fail(batch, error)
        except BaseException:
            # Cancelled at shutdown, or an internal error that ends the process: leave no caller waiting.
            self._fail(batch, Unavailable())
            raise
        else:
            for (_, future, _), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _fail(self, batch: list[tuple[I, Future[R], float]], error: GatewayError) -> None:
        for _, future, _ in batch:
            if not future.done():
                future.set_exception(error)


def _crowded() -> Unavailable:
    return Unavailable("Too many submissions are being handled.", retry_after_s=1)
