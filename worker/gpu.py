"""The loop that keeps the GPU busy: while one batch renders, the next one is chosen and announced.

`started` is accepted by the reply queue before an image is admitted, and sent while the previous batch runs, so
the GPU does not wait for it. The choice is made as late as that allows, so that late arrivals get in.

**Solo.** Core convicts an image by starts alone that brought no result, so nothing else may be able to end the
process while a solo image is unfinished: it is announced only when the worker holds nothing else that was
started, and nothing else is announced until its reply is accepted. Solo work therefore does not overlap.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from worker.batcher import Candidate, next_batch
from worker.engines.contract import Engine
from worker.errors import EngineLost
from worker.finish import Finisher
from worker.models import Models
from worker.pipeline import Line
from worker.ports import Failpoints, NewId
from worker.render import Renderer
from worker.timing import Measured, ahead, batch_kind
from worker.types import Batch, Failed, Failure, Held, State
from worker.wanted import Inquiry
from worker.window import Window

_log = structlog.get_logger()
ANNOUNCE_KIND = ("announce",)
RECEIVE_KIND = ("receive",)
MIN_LEAD_S = 0.05
MAX_LEAD_S = 2.0
LOOK_S = 0.05
"""How often an unknown batch is looked at for its first step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    engine: Engine
    members: tuple[Held, ...]

    @property
    def solo(self) -> bool:
        return self.members[0].job.solo


class Gpu:
    """One task of the service; owns the order of work on the GPU thread."""

    def __init__(
        self,
        window: Window,
        models: Models,
        inquiry: Inquiry,
        finisher: Finisher,
        line: Line,
        renderer: Renderer,
        *,
        lost: Callable[[str], Awaitable[None]],
        give_back: Callable[[], Awaitable[None]],
        measured: Measured,
        new_id: NewId,
        failpoints: Failpoints,
    ) -> None:
        self._window = window
        self._models = models
        self._inquiry = inquiry
        self._finisher = finisher
        self._line = line
        self._renderer = renderer
        self._lost = lost
        self._give_back = give_back
        self._measured = measured
        self._new_id = new_id
        self._failpoints = failpoints
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    def close(self) -> None:
        """Begin no further batch; the running one goes on."""
        self._closed = True
        self._window.touch()

    async def run(self) -> None:
        """Until `close`, and then until the running batch is done. Raises EngineLost."""
        ready = await self._prepare(None)
        try:
            while ready is not None and not self._closed:
                ready = await self._overlap(ready)
        except* EngineLost:
            await self._lost("the device failed beyond repair")
            raise
        if ready is not None:
            for held in ready.members:
                await self._line.fail(Failed(held=held, failure=Failure.DRAINED, detail="the worker stops"))

    async def _overlap(self, batch: Batch) -> Batch | None:
        """Render `batch` while the next one is made ready."""
        self._idle.clear()
        began_s = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            upcoming = group.create_task(self._prepare(batch, began_s), name="gpu.prepare")
            try:
                await self._renderer.render(batch)
            finally:
                self._idle.set()
        return upcoming.result()

    async def _prepare(self, running: Batch | None, began_s: float = 0.0) -> Batch | None:
        """The next batch, announced; None once closed."""
        if running is not None:
            await self._near_end(running, began_s)
        while not self._closed:
            choice = None if self._models.broken else self._choose()
            if choice is None:
                await self._window.changed()
            elif not self._idle.is_set() and (choice.solo or not choice.engine.loaded):
                await self._idle.wait()
            elif self._must_wait(choice):
                await self._window.changed()
            elif not choice.engine.loaded:
                if not await self._models.load(choice.engine):
                    await self._give_back()
            elif (batch := await self._announce(choice)) is not None:
                return batch
        return None

    def _must_wait(self, choice: _Choice) -> bool:
        """Solo images and everything else keep apart, from announcement to settling."""
        busy = self._window.busy()
        return bool(busy) and (choice.solo or any(held.job.solo for held in busy))

    async def _near_end(self, running: Batch, began_s: float) -> None:
        """Returns just early enough before the end of the running batch, as far as that can be told."""
        loop = asyncio.get_running_loop()
        lead_s = min(MAX_LEAD_S, max(MIN_LEAD_S, 2 * (self._measured.seconds(ANNOUNCE_KIND) or 0.0)))
        while not self._idle.is_set() and not self._closed:
            expected_s = None if running.solo else self._expected_s(running, loop.time() - began_s)
            due_s = loop.time() + LOOK_S if expected_s is None else began_s + expected_s - lead_s
            if due_s <= loop.time():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due_s):
                    await self._idle.wait()

    def _expected_s(self, running: Batch, elapsed_s: float) -> float | None:
        """The running batch's whole time: as learned, else from its progress so far, else None."""
        steps = max(held.job.render.num_inference_steps for held in running.members)
        learned_s = self._measured.seconds(batch_kind(running.key, steps, len(running.members)))
        if learned_s is not None:
            return learned_s
        done = max(held.step for held in running.members)
        return elapsed_s * steps / done if done else None

    def _choose(self) -> _Choice | None:
        candidates = [
            Candidate(
                item=held,
                key=held.key,
                priority=held.job.priority,
                solo=held.job.solo,
                received_s=held.received_s,
                order=held.order,
            )
            for held in self._window.waiting()
        ]
        now_s = asyncio.get_running_loop().time()
        members = next_batch(candidates, limit=lambda held: self._models.limit(held.job.render), now_s=now_s)
        if not members:
            return None
        return _Choice(engine=self._models.engine(members[0].job.render.model), members=members)

    async def _announce(self, choice: _Choice) -> Batch | None:
        """Ask whether they are wanted, say that they start; None when nothing is left of the choice."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await self._inquiry.before_batch(choice.members)
        members = tuple(held for held in choice.members if held.state is State.WAITING)
        if not members or self._closed:
            return None
        batch = Batch(
            id=self._new_id("bat"),
            engine=choice.engine,
            key=members[0].key,
            members=members,
            solo=choice.solo,
        )
        for held in members:
            held.attempt_id = self._new_id("att")
            self._window.move(held, State.STARTED)
        await self._finisher.started(batch)
        await self._failpoints.reach("worker.batched")
        self._measured.observe(ANNOUNCE_KIND, loop.time() - began_s)
        self._models.touch(choice.engine)
        return batch


class Room:
    """How many more messages the receiver may fetch: about two batches ahead of the GPU, from measured times."""

    def __init__(self, window: Window, models: Models, measured: Measured, *, limit: int) -> None:
        self._window = window
        self._models = models
        self._measured = measured
        self._limit = limit

    def __call__(self) -> int:
        """At most `limit` images wait in all; none for a worker that cannot load its model, or has yet to.

        Loading may take minutes, or hang: what was received meanwhile would be hidden from workers that are free.
        """
        if self._models.broken or self._models.waiting:
            return 0
        batch, batch_s = self._models.largest_batch(), None
        first = next(iter(self._window.waiting()), None)
        if first is not None:
            batch = self._models.limit(first.job.render)
            batch_s = self._measured.seconds(batch_kind(first.key, first.job.render.num_inference_steps, batch))
        receive_s = self._measured.seconds(RECEIVE_KIND) or 0.0
        target = ahead(batch=batch, batch_s=batch_s, receive_s=receive_s, limit=self._limit)
        return target - self._window.waiting_count()
