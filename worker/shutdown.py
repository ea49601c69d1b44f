"""How the worker stops: drained after a signal, or at once because its device hangs or is broken.

Drain: receiving stops, waiting jobs are given back once the last poll is over, running ones are rendered, uploaded,
answered and deleted. What is unfinished at the deadline is reported as drained, which does not count as a start without
a result.
"""

import asyncio
import contextlib

import structlog

from worker.context import Context
from worker.gpu.loop import GpuLoop
from worker.holding.leases import Leases
from worker.holding.types import Failed, Failure, State
from worker.holding.window import Window
from worker.intake.receiver import Receiver
from worker.output.delivery import Delivery

_log = structlog.get_logger()
FINAL_CALLS_S = 2.0
"""The end of the drain's deadline that is kept for the last replies and for giving messages back."""

DELIVERY_S = 5.0
"""How long finished pictures may take to be delivered after the device is lost."""


class ShutdownSequence:
    """`drain` is called at a signal, `broken` when the watchdog finds a hang or the GPU loop has lost the device."""

    def __init__(
        self,
        context: Context,
        window: Window,
        leases: Leases,
        receiver: Receiver,
        delivery: Delivery,
        gpu: GpuLoop,
    ) -> None:
        self._context = context
        self._window = window
        self._leases = leases
        self._receiver = receiver
        self._delivery = delivery
        self._gpu = gpu
        self.begun = False

    async def drain(self, deadline_s: float) -> None:
        """Returns when nothing is held, and soon after the deadline even if queue and store hang."""
        loop = asyncio.get_running_loop()
        end = loop.time() + max(0.0, deadline_s - FINAL_CALLS_S)
        self._close("draining")
        await self._context.failpoints.reach("worker.drain")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await self._receiver.poll_ended()
        with contextlib.suppress(TimeoutError):
            # Even if the last poll has used up the deadline: otherwise these jobs stay hidden until their timeout.
            async with asyncio.timeout_at(max(end, loop.time() + FINAL_CALLS_S)):
                await self._release_waiting()
        try:
            async with asyncio.timeout_at(end):
                await self._until_empty()
        except TimeoutError:
            _log.warning("drain.deadline", held=len(self._window.held()))
            await self._report(Failure.DRAINED, "the worker stopped before it could finish")
        _log.info("worker.drained")

    async def broken(self, failure: Failure, detail: str) -> None:
        """The device is lost: report running images as failed and announced ones as drained, deliver finished
        pictures, give back the rest.
        """
        self._close(detail)
        await self._release_waiting()
        running = [held for held in self._window.busy() if held.state is State.RUNNING]
        announced = [held for held in self._window.busy() if held.state is State.STARTED]
        try:
            async with asyncio.timeout(DELIVERY_S):  # also for `fail`, which waits while the pipeline is full
                for held in running:
                    await self._delivery.fail(Failed(held=held, failure=failure, detail=detail))
                for held in announced:
                    await self._delivery.fail(Failed(held=held, failure=Failure.DRAINED, detail=detail))
                await self._until_empty()
        except TimeoutError:
            await self._release_all()

    def _close(self, reason: str) -> None:
        self.begun = True
        self._context.health.mark_unready("shutdown", reason)
        self._receiver.close()
        self._gpu.close()

    async def _release_waiting(self) -> None:
        waiting = self._window.waiting()
        receipts = [receipt for held in waiting for receipt in held.receipts.values()]
        for held in waiting:
            self._window.release(held)
        await self._leases.give_back(receipts)
        if receipts:
            _log.info("window.released", messages=len(receipts))

    async def _release_all(self) -> None:
        await self._leases.give_back([receipt for _, _, receipt in self._window.receipts()])

    async def _report(self, failure: Failure, detail: str) -> None:
        """Reports a failure for each image that was started and is not settled. What cannot be reported in time is
        given back, to be delivered again.
        """
        try:
            async with asyncio.timeout(FINAL_CALLS_S / 2):
                for held in self._window.busy():
                    if held.attempt_id:
                        await self._delivery.fail(Failed(held=held, failure=failure, detail=detail))
                await self._until_empty()
        except TimeoutError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FINAL_CALLS_S / 2):
                    await self._release_all()

    async def _until_empty(self) -> None:
        while self._window.held():
            await self._window.changed()
