"""Prefetches messages ahead of the GPU and hands each to `job_intake`. One task of the worker."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from infra.retry import Permanent, Retryable, backoff_s, error_text
from worker.context import Context
from worker.holding.leases import CALL_DEADLINE_S, Leases
from worker.holding.window import Window
from worker.intake.job_intake import JobIntake, Taken
from worker.intake.prefetch import Prefetch
from worker.ports import RECEIVE_LIMIT, JobQueue, Received

_log = structlog.get_logger()
REFUSAL_PAUSE_S = 1.0
"""Longest pause after a poll with only jobs that this worker cannot render, so that a worker that can polls first."""

LOOK_S = 1.0
"""How often an idle GPU is reported to the ledger while nothing is received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polling:
    """Seconds of one long poll, and for how long it hides what it brings."""

    wait_s: int
    visibility_s: int


class Receiver:
    """Polls while `prefetch` has room. `close` does not cancel the poll in flight: it ends by itself, and its messages
    are given back. Those of a cancelled poll might stay hidden until their visibility timeout, held by no worker.
    """

    def __init__(
        self,
        context: Context,
        window: Window,
        queue: JobQueue,
        leases: Leases,
        prefetch: Prefetch,
        intake: JobIntake,
        polling: Polling,
    ) -> None:
        self._context = context
        self._window = window
        self._queue = queue
        self._leases = leases
        self._prefetch = prefetch
        self._intake = intake
        self._polling = polling
        self._closed = asyncio.Event()
        self._no_poll = asyncio.Event()
        self._no_poll.set()

    def close(self) -> None:
        """Receive nothing more."""
        self._closed.set()
        self._window.touch()

    async def poll_ended(self) -> None:
        """After `close`: returns when the poll in flight is over, and at the latest a second after its wait time.
        Messages must not be given back sooner: that poll would receive them at once, each time counts as a delivery,
        and `suspect_receives` deliveries make an image a suspect.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._polling.wait_s + 1):
                await self._no_poll.wait()

    async def run(self) -> None:
        """Receives until `close`."""
        failures = 0
        while not self._closed.is_set():
            room = self._prefetch.room()
            if room <= 0:
                await self._hold_back()
                continue
            received = await self._poll(min(RECEIVE_LIMIT, room))
            if received is None:
                failures += 1
                await self._pause(backoff_s(failures, first_s=0.2, cap_s=10.0, draw=self._context.rng()))
                continue
            failures = 0
            taken = await self._take_all(received)
            if received and sum(each.refused for each in taken) == len(received):
                await self._pause(REFUSAL_PAUSE_S * (0.5 + self._context.rng() / 2))

    async def _hold_back(self) -> None:
        """Returns at the next change of the window. While too many images are behind the GPU, returns after LOOK_S as
        well and books an idle GPU's time as backpressure, since that may last until an operator repairs the queue.
        """
        if not self._prefetch.full:
            await self._window.changed()
            return
        self._context.health.mark_unready("behind", "too many images wait to be answered or deleted")
        began = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._window.changed()
        if not self._window.upcoming():
            self._context.ledger.held_back(began, asyncio.get_running_loop().time())
        if not self._prefetch.full:
            self._context.health.clear("behind")

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    async def _poll(self, limit: int) -> Sequence[Received] | None:
        began = asyncio.get_running_loop().time()
        wait_s, visibility_s = self._polling.wait_s, self._polling.visibility_s
        self._no_poll.clear()
        try:
            async with asyncio.timeout(wait_s + CALL_DEADLINE_S):
                received = await self._queue.receive(limit=limit, wait_s=wait_s, visibility_s=visibility_s)
        except (Retryable, Permanent, TimeoutError) as error:
            self._context.metrics.call_failures.labels(call="receive").inc()
            self._context.health.mark_unready("jobs", f"jobs queue: {error_text(error)}")
            _log.warning("receive.failed", reason=error_text(error))
            return None
        finally:
            self._no_poll.set()
        self._context.health.clear("jobs")
        ended = asyncio.get_running_loop().time()
        if not received:
            here = [held.existed_s for held in self._window.upcoming()]
            self._context.ledger.settle(ended, existed_since_s=min(here, default=None))
        else:
            self._context.recorder("receive", f"{len(received)} messages", began, ended)
        if len(received) == limit:  # otherwise most of the time went into waiting for messages
            self._prefetch.received(ended - began)
        return received

    async def _take_all(self, received: Sequence[Received]) -> list[Taken]:
        """What became of each message taken before `close`; the others are given back."""
        self._context.metrics.received.inc(len(received))
        taken: list[Taken] = []
        done: list[str] = []
        unasked: list[str] = []
        for message in received:
            await self._context.failpoints.reach("worker.received")
            if self._closed.is_set():
                unasked.append(message.receipt)
                continue
            taken.append(await self._intake.take(message))
            if taken[-1].deletable:
                done.append(message.receipt)
        await self._leases.delete(done)
        await self._leases.give_back(unasked)
        return taken
