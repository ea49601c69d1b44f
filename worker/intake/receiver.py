"""Receives ahead of the GPU into the window, and sorts out what is no valid job. One task of the service.

A corrupt or foreign message is quarantined: counted, logged without content, its bytes and text attributes sent to the
dead-letter queue, and deleted once that queue has accepted it. Whatever comes, the consumer goes on.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import structlog

from infra.retry import Permanent, Retryable, backoff_s, cause
from schema.messages import BadMessage
from worker.batching.measurements import Measurements
from worker.engines.contract import BatchKey
from worker.engines.errors import Unsupported
from worker.gpu.model_faults import refusal_of
from worker.gpu.model_pool import ModelPool
from worker.health import Health
from worker.holding.types import Failure, Job, State
from worker.holding.window import Offer, Window
from worker.intake.prefetch import RECEIVE_KIND, Prefetch
from worker.messages import parse
from worker.metrics import Metrics
from worker.output.delivery import Delivery
from worker.ports import Failpoints, JobQueue, Received, Recorder, Reply, ReplyQueue, Rng
from worker.time_ledger import TimeLedger

_log = structlog.get_logger()
CALL_DEADLINE_S = 10.0
REFUSAL_PAUSE_S = 1.0
"""After a poll that brought nothing but what cannot be made here: those who can make it get a chance first."""

LOOK_S = 1.0
"""How often the ledger hears of an idle GPU while nothing is received."""


class Receiver:
    """Polls while there is room. After `close` the poll under way ends by itself and what it brings is given back:
    a poll cut short can leave messages with nobody until their visibility timeout.
    """

    def __init__(
        self,
        window: Window,
        queue: JobQueue,
        dead: ReplyQueue,
        delivery: Delivery,
        models: ModelPool,
        *,
        prefetch: Prefetch,
        wait_s: int,
        visibility_s: int,
        suspect_receives: int,
        rng: Rng,
        measured: Measurements,
        ledger: TimeLedger,
        metrics: Metrics,
        health: Health,
        failpoints: Failpoints,
        recorder: Recorder,
        wall_ms: Callable[[], int],
    ) -> None:
        self._window = window
        self._queue = queue
        self._dead = dead
        self._delivery = delivery
        self._models = models
        self._prefetch = prefetch
        self._wait_s = wait_s
        self._visibility_s = visibility_s
        self._suspect_receives = suspect_receives
        self._rng = rng
        self._measured = measured
        self._ledger = ledger
        self._metrics = metrics
        self._health = health
        self._failpoints = failpoints
        self._recorder = recorder
        self._wall_ms = wall_ms
        self._refused = 0
        self._closed = asyncio.Event()
        self._no_poll = asyncio.Event()
        self._no_poll.set()

    def close(self) -> None:
        """Receive nothing more."""
        self._closed.set()
        self._window.touch()

    async def poll_ended(self) -> None:
        """After `close`: until the poll under way is over. What is given back before would come back by it at once,
        each time counted as a delivery, and after some of these an image is under suspicion.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s + 1):
                await self._no_poll.wait()

    async def run(self) -> None:
        """Until `close`."""
        failures = 0
        while not self._closed.is_set():
            room = self._prefetch.room()
            if room <= 0:
                await self._hold_back()
                continue
            received = await self._poll(min(10, room))
            if received is None:
                failures += 1
                await self._pause(backoff_s(failures, first_s=0.2, cap_s=10.0, draw=self._rng()))
                continue
            failures, self._refused = 0, 0
            await self._take_all(received)
            if received and self._refused == len(received):
                await self._pause(REFUSAL_PAUSE_S * (0.5 + self._rng() / 2))

    async def release(self, receipts: Sequence[str]) -> None:
        """Give messages back to the queue now. Best effort: the visibility timeout does it otherwise."""
        if receipts:
            await self._call("release", lambda: self._queue.extend(receipts, 0))

    async def _hold_back(self) -> None:
        """Until something changes. When that is because of what is behind the GPU, an idle GPU waits for just that,
        and says so as it goes: it may take until somebody mends the queue.
        """
        if not self._prefetch.full:
            await self._window.changed()
            return
        self._health.mark_unready("behind", "too many images wait to be answered or deleted")
        began = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._window.changed()
        if not self._window.upcoming():
            self._ledger.held_back(began, asyncio.get_running_loop().time())
        if not self._prefetch.full:
            self._health.clear("behind")

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    async def _poll(self, limit: int) -> Sequence[Received] | None:
        began = asyncio.get_running_loop().time()
        self._no_poll.clear()
        try:
            async with asyncio.timeout(self._wait_s + CALL_DEADLINE_S):
                received = await self._queue.receive(limit=limit, wait_s=self._wait_s, visibility_s=self._visibility_s)
        except (Retryable, Permanent, TimeoutError) as error:
            self._metrics.call_failures.labels(call="receive").inc()
            self._health.mark_unready("jobs", f"jobs queue: {cause(error)}")
            _log.warning("receive.failed", reason=cause(error))
            return None
        finally:
            self._no_poll.set()
        self._health.clear("jobs")
        ended = asyncio.get_running_loop().time()
        if not received:
            here = [held.existed_s for held in self._window.upcoming()]
            self._ledger.settle(ended, existed_since_s=min(here, default=None))
        else:
            self._recorder("receive", f"{len(received)} messages", began, ended)
        if len(received) == limit:  # otherwise most of the time went into waiting for messages
            self._measured.observe(RECEIVE_KIND, ended - began)
        return received

    async def _take_all(self, received: Sequence[Received]) -> None:
        self._metrics.received.inc(len(received))
        done: list[str] = []
        unasked: list[str] = []
        for message in received:
            await self._failpoints.reach("worker.received")
            if self._closed.is_set():
                unasked.append(message.receipt)
            elif await self._take(message):
                done.append(message.receipt)
        if done:
            await self._call("delete", lambda: self._queue.delete(done))
        await self.release(unasked)

    async def _take(self, message: Received) -> bool:
        """True when the message may be deleted."""
        if message.receive_count > 1:
            self._metrics.redelivered.inc()
        try:
            job = parse(message.body, message.attributes, suspect=message.receive_count >= self._suspect_receives)
        except BadMessage as error:
            return await self._quarantine(message, str(error))
        await self._failpoints.reach("worker.validated")
        try:
            key = self._models.key(job.render)
        except Unsupported as error:
            return await self._refuse(message, job, *refusal_of(error))
        fault = self._models.fault(job.render.model)
        if fault is not None:
            return await self._refuse(message, job, fault.failure, fault.reason)
        return self._offer(message, job, key) is Offer.SETTLED

    def _offer(self, message: Received, job: Job, key: BatchKey) -> Offer:
        now_s = asyncio.get_running_loop().time()
        age_s = max(0.0, self._wall_ms() / 1000 - job.requested_at_s) if job.requested_at_s else 0.0
        offer = self._window.offer(
            job, key, message_id=message.message_id, receipt=message.receipt, now_s=now_s, existed_s=now_s - age_s
        )
        if offer is not Offer.HELD:
            self._metrics.duplicates.labels(kind=offer.value).inc()
        return offer

    async def _refuse(self, message: Received, job: Job, failure: Failure, reason: str) -> bool:
        self._refused += 1
        offer = self._offer(message, job, ())
        held = self._window.get(job.render.id)
        if held is not None and held.state is State.WAITING and not held.key:
            await self._delivery.refuse(held, failure, reason)
        return offer is Offer.SETTLED

    async def _quarantine(self, message: Received, reason: str) -> bool:
        self._metrics.quarantined.inc()
        _log.warning("message.quarantined", message_id=message.message_id, bytes=len(message.body), reason=reason)
        copy = Reply(body=message.body, attributes=message.attributes)
        accepted = await self._call("quarantine", lambda: self._dead.send([copy]))
        return bool(accepted and accepted[0])

    async def _call(self, name: str, call: Callable[[], Awaitable[Sequence[bool]]]) -> Sequence[bool] | None:
        """The answer, or None after a failure that costs nothing but a redelivery."""
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                return await call()
        except (Retryable, Permanent, TimeoutError) as error:
            self._metrics.call_failures.labels(call=name).inc()
            _log.warning("call.failed", call=name, reason=cause(error))
            return None
