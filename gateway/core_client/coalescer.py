"""Many single items become few calls: whatever waits when a call comes back goes out together with the next one.

No timer: an item that finds a free caller leaves at once, and the busier the service, the larger the batches.
One submission per call costs 5.7 times as much through grpclib. Owners take turns in each batch, and when no more may
wait, the owner with most items gives way, so that nobody waits behind, or is refused for, the crowd of another.
Generic: knows no gRPC and no HTTP.
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
    """Sends items through `call`, which answers as many results as it is given items, in their order.

    `call` is given the loop time by which it must have answered. An item is answered within `timeout_s`; one that has
    waited half of that before its turn is answered Unavailable and never sent. So every call has half of it at least:
    with less, a core that catches up would accept what its clients are told has failed.
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
        """The result of `item`. A caller that goes away before its turn takes it back. Raises Unavailable, Broken."""
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
        """One caller; run two, so that one batch is under way while the next one is decided."""
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
            # Cancelled at the end of the process, or a fault of ours that ends it: nobody is left waiting.
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
