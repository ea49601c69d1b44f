"""The loop that keeps the GPU busy, in three forms beside each other. `assembly` chooses one of them, once.

`PlainLoop` and `BatchedLoop` are references: the simplest loops that are right, to compare the real one with in tests
and benchmarks. `OverlappedLoop` serves. All three render one session at a time and differ in when the next images are
chosen and announced, how many, and whether they may join a session that runs.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from infra.loops import Loops
from worker.batching.batcher import next_batch
from worker.engines.contract import BatchKey, Engine
from worker.engines.errors import EngineAway
from worker.gpu.announcer import Announcer
from worker.gpu.gpu_state import GpuState
from worker.gpu.lookahead import Lookahead, candidates
from worker.gpu.models.model_pool import ModelPool
from worker.gpu.renderer import Renderer
from worker.gpu.sessions.members import members_of
from worker.holding.types import Batch, Failed, Failure, Held, State
from worker.holding.window import Window
from worker.output.delivery import Delivery
from worker.ports import RECEIVE_LIMIT

LOOK_S = 0.05
"""Seconds between checks whether a running session is about to end, for engines that do not report each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuParts:
    """What a loop works with. `lookahead` is the overlapped loop's."""

    window: Window
    delivery: Delivery
    state: GpuState
    announcer: Announcer
    renderer: Renderer
    models: ModelPool
    lookahead: Lookahead


class GpuLoop(ABC):
    """What the three loops share: one session at a time, and the answers for announced images that cannot run."""

    joins_midway: ClassVar[bool]
    """Whether images may join a session that runs."""
    receives_at_once: ClassVar[int | None]
    """Most images received together, and only while nothing is held. None: jobs are prefetched ahead of the GPU."""

    def __init__(self, parts: GpuParts) -> None:
        self._parts = parts
        self._window, self._delivery, self._state = parts.window, parts.delivery, parts.state
        self._announcer, self._models = parts.announcer, parts.models

    @abstractmethod
    async def run(self) -> None:
        """Serve until `close`, and then until all images have left the GPU. Raises EngineLost or LoopEnded, alone or
        in an exception group.
        """

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._announcer.closed

    def close(self) -> None:
        """Admit nothing more; what is on the GPU is finished."""
        self._announcer.close()
        session = self._state.session
        if session is not None:
            session.close()
            self._turn_away(member.held for member in session.mailbox.take_offered())

    async def _announce(self, chosen: Sequence[Held]) -> Batch | None:
        """Announce the chosen images; the batch, or None. With nothing chosen, wait for a change of the window, or
        load the default model again if that is due and the worker is idle.
        """
        if chosen:
            return await self._announcer.announce(chosen)
        idle = self._state.session is None and self._state.coming is None and not self._window.upcoming()
        retried = self._models.to_retry() if idle else None
        await (self._models.load(retried) if retried is not None else self._changed())
        return None

    async def _changed(self) -> None:
        """Wait for a change of the window. Every reported step is one while images wait, but an engine may end a
        session without a report: then look again after LOOK_S.
        """
        timeout = LOOK_S if self._state.session is not None and self._window.waiting_count() else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._window.changed()

    async def _render(self, batch: Batch) -> None:
        """One session, until the last image has left it."""
        if self.closed:
            self._turn_away(batch.members)
            return
        model = batch.members[0].job.render.model
        fault = self._models.fault(model)
        if fault is not None or not batch.engine.loaded:  # it became unusable during the announcement
            await self._answer(model, fault.reason if fault is not None else "the model is not loaded any more")
            return
        try:
            await self._session(batch)
        except EngineAway as error:
            await self._out(batch.engine, model, error)

    async def _session(self, batch: Batch) -> None:
        renderer = self._parts.renderer
        session = renderer.session(batch.engine, batch.key, joins_midway=self.joins_midway, solo=batch.solo)
        session.offer(members_of(batch))
        self._state.session = session
        try:
            await renderer.run(session)
        finally:
            # Before an error is handled: the announcer must not offer to a session whose thread has stopped.
            self._state.session = None
            self._window.touch()

    async def _out(self, engine: Engine, model: str, error: EngineAway) -> None:
        """Take a model that cannot be used for now out of service: answer its announced and running images as
        MODEL_AWAY, which is uncounted, and refuse its waiting ones. Images of other models go on.
        """
        fault = await self._models.lose(engine, error)
        coming = self._state.coming
        if coming is not None and coming.engine is engine:  # its images are STARTED: answered with the others below
            self._state.coming = None
        await self._answer(model, fault.reason)
        for held in [each for each in self._window.waiting() if each.job.render.model == model]:
            if held.state is State.WAITING:  # an image may be dropped while others are refused
                await self._delivery.refuse(held, fault.failure, fault.reason)
        self._window.touch()

    async def _answer(self, model: str, reason: str) -> None:
        """Answer the announced and running images of an unusable model as MODEL_AWAY: the fault is not theirs."""
        for held in self._window.busy():
            if held.job.render.model == model and held.state in (State.STARTED, State.RUNNING):
                await self._delivery.fail(Failed(held=held, failure=Failure.MODEL_AWAY, detail=reason))

    def _turn_away(self, announced: Iterable[Held]) -> None:
        """Answer announced images that will not run here as DRAINED."""
        for held in announced:
            self._delivery.fail_now(Failed(held=held, failure=Failure.DRAINED, detail="the worker stops"))


class PlainLoop(GpuLoop):
    """One image at a time: the next is chosen once this one is uploaded and its reply accepted."""

    joins_midway = False
    receives_at_once = 1

    async def run(self) -> None:
        """See GpuLoop."""
        while not self.closed:
            waiting = [] if self._window.busy() else candidates(self._window)
            batch = await self._announce(next_batch(waiting, step_s=_free, limit=_one, now_s=_now_s()))
            if batch is not None:
                await self._render(batch)


class BatchedLoop(GpuLoop):
    """One batch at a time, as large as fits: the next is chosen once this one is settled."""

    joins_midway = False
    receives_at_once = RECEIVE_LIMIT

    async def run(self) -> None:
        """See GpuLoop."""
        while not self.closed:
            waiting = [] if self._window.busy() else candidates(self._window)
            batch = await self._announce(next_batch(waiting, step_s=_free, limit=self._fitting, now_s=_now_s()))
            if batch is not None:
                await self._render(batch)

    def _fitting(self, held: Held) -> int:
        return self._models.limit(held.job.render, held.key)


class OverlappedLoop(GpuLoop):
    """Two tasks: while one renders a session, the other announces images that join it at a step or follow it at once.
    Meanwhile the delivery pipeline uploads and answers the pictures that have left the GPU.
    """

    joins_midway = True
    receives_at_once = None

    async def run(self) -> None:
        """See GpuLoop."""
        async with Loops() as loops:
            loops.run("worker.announce", self._announce_ahead, may_return=self._is_closed)
            while (batch := await self._coming()) is not None:
                await self._render(batch)
        if self._state.coming is not None:  # it was being announced when the loop was closed
            self._turn_away(self._state.coming.members)

    async def _announce_ahead(self) -> None:
        while not self.closed:
            batch = await self._announce(self._parts.lookahead.choose())
            if batch is not None:
                self._hand_over(batch)

    def _hand_over(self, batch: Batch) -> None:
        """Offer the batch to the running session if that is open and of its key; otherwise keep it for the next one."""
        session = self._state.session
        if session is not None and session.open and session.key == batch.key and not batch.solo:
            session.offer(members_of(batch))
        else:
            self._state.coming = batch
        self._window.touch()

    async def _coming(self) -> Batch | None:
        """The next session's first images, once they are announced; None after `close`."""
        while not self.closed:
            batch, self._state.coming = self._state.coming, None
            if batch is not None:
                self._window.touch()  # the next may be chosen
                return batch
            await self._window.changed()
        return None

    def _is_closed(self) -> bool:
        return self.closed


def _one(_: Held) -> int:
    return 1


def _free(_: BatchKey) -> Callable[[int], float]:
    """As if batching were free: the reference loops take all that fits."""
    return lambda _: 1.0


def _now_s() -> float:
    return asyncio.get_running_loop().time()
