"""The loop that keeps the GPU busy: one session after the other, each with what the announcer has ready for it."""

from collections.abc import Awaitable, Callable, Iterable

from infra.loops import Loops
from worker.engines.contract import Engine
from worker.engines.errors import EngineAway, EngineLost
from worker.gpu.announcer import Announcer
from worker.gpu.gpu_state import GpuState
from worker.gpu.model_pool import ModelPool
from worker.gpu.renderer import Renderer
from worker.gpu.slots import members_of
from worker.holding.types import Batch, Failed, Failure, Held, State
from worker.holding.window import Window
from worker.output.delivery import Delivery


class GpuLoop:
    """One task of the service; owns the order of work on the GPU thread."""

    def __init__(
        self,
        window: Window,
        delivery: Delivery,
        floor: GpuState,
        announcer: Announcer,
        renderer: Renderer,
        models: ModelPool,
        *,
        refuse: Callable[[Held, Failure, str], Awaitable[None]],
        lost: Callable[[Failure, str], Awaitable[None]],
    ) -> None:
        self._window = window
        self._delivery = delivery
        self._floor = floor
        self._announcer = announcer
        self._renderer = renderer
        self._models = models
        self._refuse = refuse
        self._lost = lost

    def close(self) -> None:
        """Let nobody in any more; who is on the GPU goes on."""
        self._announcer.close()
        session = self._floor.session
        if session is not None:
            session.close()
            self._turn_away(member.held for member in session.take_back())

    async def run(self) -> None:
        """Until `close`, and then until everybody has left the GPU. Raises EngineLost, LoopEnded."""
        try:
            async with Loops() as loops:
                loops.run("worker.announce", self._announcer.run, may_return=lambda: self._announcer.closed)
                await self._serve()
        except* EngineLost:
            await self._lost(Failure.MODEL_ERROR, "the device failed beyond repair")
            raise
        if self._floor.coming is not None:
            self._turn_away(self._floor.coming.members)

    async def _serve(self) -> None:
        while (coming := await self._announcer.coming()) is not None:
            model = coming.members[0].job.render.model
            fault = self._models.fault(model)
            if fault is not None or not coming.engine.loaded:  # it went out while they were announced
                await self._answer(model, fault.reason if fault is not None else "the model is not loaded any more")
                continue
            try:
                await self._session(coming)
            except EngineAway as error:
                await self._out(coming.engine, model, error)

    async def _session(self, coming: Batch) -> None:
        session = self._renderer.session(coming.engine, coming.key, solo=coming.solo)
        session.offer(members_of(coming))
        self._floor.session = session
        try:
            await self._renderer.run(session)
        finally:
            self._floor.session = None
            self._window.touch()

    async def _out(self, engine: Engine, model: str, error: EngineAway) -> None:
        """Its model cannot be used for now: its images are given back, uncounted, and those of others go on."""
        fault = await self._models.lose(engine, error)
        coming = self._floor.coming
        if coming is not None and coming.engine is engine:
            self._floor.coming = None
        await self._answer(model, fault.reason)
        for held in [each for each in self._window.waiting() if each.job.render.model == model]:
            if held.state is State.WAITING:  # it may end while others are refused
                await self._refuse(held, fault.failure, fault.reason)
        self._window.touch()

    async def _answer(self, model: str, reason: str) -> None:
        """What was announced, or ran, for a model that is out. Says nothing about the images."""
        for held in self._window.busy():
            if held.job.render.model == model and held.state in (State.STARTED, State.RUNNING):
                await self._delivery.fail(Failed(held=held, failure=Failure.MODEL_AWAY, detail=reason))

    def _turn_away(self, announced: Iterable[Held]) -> None:
        """They were announced and will not run here."""
        for held in announced:
            self._delivery.fail_now(Failed(held=held, failure=Failure.DRAINED, detail="the worker stops"))
