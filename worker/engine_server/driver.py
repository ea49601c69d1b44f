"""Lets many callers share one engine: waiting pictures become batches on the engine's own thread.

Used by the HTTP side of the engine server. First come, first served: the picture that waits longest opens a batch, and
those behind it join up to the first of another batch key; if the engine supports `join_midway`, also while the batch
runs. The images of a batch that fails are run again one by one, so that a picture fails only for its own fault; after
memory ran out, later batches are smaller.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from worker.batching.batch_limits import BatchLimits
from worker.engines.contract import Done, EncodedPicture, Engine, Picture, Progress, RenderJob
from worker.engines.errors import EngineError, EngineLost, OutOfMemory
from worker.gpu.watchdog import Pulse

_log = structlog.get_logger()
T = TypeVar("T")


class Busy(Exception):
    """The queue of waiting pictures is full."""


@dataclass(slots=True, kw_only=True)
class _Waiting:
    job: RenderJob
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Picture | EncodedPicture]"
    alone: bool = False
    unwanted: bool = False

    def settle(self, result: Picture | EncodedPicture | Exception) -> None:
        """Hand the result to the caller's event loop. Any thread."""

        def on_loop() -> None:
            if self.future.done():
                return
            if isinstance(result, Exception):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)

        with contextlib.suppress(RuntimeError):  # the loop has closed, and the caller with it
            self.loop.call_soon_threadsafe(on_loop)


class Driver:
    """`run` belongs on a thread of its own, everything else on an event loop. The engine is loaded by `run`."""

    def __init__(
        self, engine: Engine, *, waiting: int, pulse: Pulse, on_end: Callable[[BaseException | None], None]
    ) -> None:
        self._engine = engine
        self._pulse = pulse
        self._sign_s = 0.0
        self._most = waiting
        self._on_end = on_end
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._members: dict[str, _Waiting] = {}
        self._undecoded: deque[tuple[_Waiting, Done]] = deque()
        self._caps = BatchLimits()
        self._stopping = False
        self._over = False
        self.ready = False

    @property
    def silent_s(self) -> float:
        """Seconds since the engine's last sign of life; 0 while it has nothing to do."""
        return time.perf_counter() - self._sign_s if self._pulse.working else 0.0

    async def render(self, job: RenderJob) -> Picture | EncodedPicture:
        """Render one picture. Raises Busy, Unsupported, EngineLost when the server ends, or what the engine raised for
        this job. Cancellation evicts the job from the engine.
        """
        self._engine.key(job)
        loop = asyncio.get_running_loop()
        mine = _Waiting(job=job, loop=loop, future=loop.create_future())
        with self._changed:
            if self._over:
                raise EngineLost("the server ends")
            if len(self._waiting) >= self._most:
                raise Busy
            self._waiting.append(mine)
            self._changed.notify()
        try:
            return await mine.future
        except asyncio.CancelledError:
            self._withdraw(mine)
            raise

    def stop(self) -> None:
        """Ends `run` after the current step."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def abandon(self) -> None:
        """Give up on an engine that hangs: all callers get EngineLost at once, and no more jobs are accepted."""
        with self._changed:
            self.ready, self._over, self._stopping = False, True, True
            left = self._unanswered()
        for each in left:
            each.settle(EngineLost("the engine hangs"))

    def run(self) -> None:
        """Loads the engine and serves until stopped or failed. Calls `on_end` with the failure, or with None."""
        why: BaseException | None = None
        try:
            self._engine.load()
            self.ready = True
            while self._admitted():
                self._step()
        except Exception as error:  # noqa: BLE001  (passed to `on_end`, which ends the process)
            why = error
        with self._changed:
            self.ready, self._over = False, True
            left = self._unanswered()
        for each in left:
            each.settle(EngineLost("the server ends"))
        self._on_end(why)

    def _unanswered(self) -> Sequence[_Waiting]:
        """Callers without an answer yet. Call it under the lock."""
        return [*self._members.values(), *(each for each, _ in tuple(self._undecoded)), *self._waiting]

    def _withdraw(self, mine: _Waiting) -> None:
        with self._changed:
            mine.unwanted = True
            if mine in self._waiting:
                self._waiting.remove(mine)
            running = self._members.get(mine.job.id) is mine
        if running:  # otherwise it would be another caller's picture under the same id
            self._engine.evict(mine.job.id)

    def _admitted(self) -> bool:
        """Admits the jobs that may join; waits while there is nothing to do. False once stopped."""
        with self._changed:
            while not (self._waiting or self._members or self._stopping):
                self._changed.wait()
            newcomers = self._choose()
            self._members |= {each.job.id: each for each in newcomers}
        if newcomers:
            self._work_begins()
            self._attempt(lambda: self._engine.admit([each.job for each in newcomers]))
        return not self._stopping

    def _choose(self) -> Sequence[_Waiting]:
        """Takes the jobs that may join from the head of the queue. Call it under the lock."""
        if self._members and not self._engine.capabilities.join_midway:
            return ()
        mates = list(self._members.values())
        while self._waiting and self._may_join(self._waiting[0], mates):
            mates.append(self._waiting.popleft())
        return mates[len(self._members) :]

    def _may_join(self, head: _Waiting, mates: Sequence[_Waiting]) -> bool:
        if not mates:
            return True
        key = self._engine.key(head.job)
        if head.alone or mates[0].alone or key != self._engine.key(mates[0].job):
            return False
        if any(each.job.id == head.job.id for each in mates):  # asked for again; the first is about to leave
            return False
        return len(mates) < self._caps.limit(head.job, key, self._engine.capabilities.max_batch)

    def _step(self) -> None:
        if not self._members:
            return
        for each in [each for each in self._members.values() if each.unwanted]:
            self._engine.evict(each.job.id)  # cancelled before it was admitted, when the engine did not know it
        self._work_begins()
        stepped = self._attempt(lambda: self._engine.step(self._beat))
        if stepped is None:
            return
        if stepped.fits is not None:
            self._caps.measured(self._engine.key(next(iter(self._members.values())).job), stepped.fits)
        for job_id in stepped.evicted:
            self._left(self._members.pop(job_id, None))
        older = len(self._undecoded)
        for done in stepped.finished:
            member = self._members.pop(done.job_id, None)
            if member is not None:
                self._undecoded.append((member, done))
        # Pictures that the device decodes beside the next step are fetched after that one, if there is one.
        self._decode_all_but(len(self._undecoded) - older if stepped.ahead and self._members else 0)
        self._sign_s = time.perf_counter()
        self._pulse.end(self._sign_s)

    def _left(self, member: _Waiting | None) -> None:
        """Handles a job that the engine has evicted. One that is still wanted was evicted in place of an earlier job of
        the same id: it starts again, alone, and fails if that happens once more.
        """
        if member is None or member.unwanted:
            return
        if member.alone:
            member.settle(EngineError("the engine gave it up"))
            return
        member.alone = True
        with self._changed:
            self._waiting.appendleft(member)

    def _work_begins(self) -> None:
        self._sign_s = time.perf_counter()
        self._pulse.begin(self._engine.key(next(iter(self._members.values())).job), self._sign_s)

    def _beat(self, _: Progress | None = None) -> None:
        """Records a sign of life. Progress goes no further: callers over HTTP get only the result."""
        self._sign_s = time.perf_counter()
        self._pulse.beat(self._sign_s)

    def _decode_all_but(self, newest: int) -> None:
        while len(self._undecoded) > newest:
            self._decode(*self._undecoded[0])  # stays in the queue until then: `abandon` must find it if this hangs
            self._undecoded.popleft()
            self._beat()

    def _decode(self, member: _Waiting, done: Done) -> None:
        if member.unwanted:
            return
        try:
            member.settle(self._engine.decode(done))
        except EngineLost:
            raise
        except Exception as error:  # noqa: BLE001  (a model may raise anything)
            member.settle(error.with_traceback(None))

    def _attempt(self, call: Callable[[], T]) -> T | None:
        """The result of `call`; None after it has failed, with all members answered or queued. Raises EngineLost."""
        try:
            return call()
        except EngineLost:
            raise
        except Exception as error:  # noqa: BLE001  (a model may raise anything)
            failure = error.with_traceback(None)  # which would hold tensors
        self._sign_s = time.perf_counter()
        self._pulse.begin_reset(self._sign_s)
        self._engine.reset()
        self._pulse.fail()
        members, self._members = list(self._members.values()), {}
        self._again([each for each, _ in self._undecoded])
        self._undecoded.clear()
        if len(members) == 1:
            members[0].settle(failure)
            return None
        _log.warning("engine_server.batch_failed", size=len(members), error=type(failure).__name__)
        if isinstance(failure, OutOfMemory) and members:
            self._caps.ran_out(members[0].job, len(members))
        for each in members:
            each.alone = True
        self._again(members)
        return None

    def _again(self, lost: Sequence[_Waiting]) -> None:
        """Put jobs back at the head of the queue, to start again."""
        with self._changed:
            self._waiting.extendleft(reversed([each for each in lost if not each.unwanted]))
