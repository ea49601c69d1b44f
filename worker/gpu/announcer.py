"""Announces a batch: asks core once more whether its images are wanted, and waits until the reply queue has accepted
`started` for each before any of them is admitted to the GPU.

Knows nothing of sessions: `lookahead` and `loop` choose the images and decide where the announced batch goes.
"""

import asyncio
from collections.abc import Sequence

from worker.batching.learned import Learned
from worker.context import Context
from worker.engines.contract import Engine
from worker.engines.errors import Unsupported
from worker.gpu.models.model_faults import ModelFault, refusal_of
from worker.gpu.models.model_pool import ModelPool
from worker.gpu.still_wanted import StillWantedCheck
from worker.holding.types import Batch, Held, State
from worker.holding.window import Window
from worker.output.delivery import Delivery
from worker.output.settling import Settler

ANNOUNCE_KIND = ("announce",)


class Announcer:
    """Used by the GPU loop, for one batch at a time."""

    def __init__(
        self,
        context: Context,
        window: Window,
        models: ModelPool,
        still_wanted: StillWantedCheck,
        settler: Settler,
        delivery: Delivery,
        learned: Learned,
    ) -> None:
        self._context = context
        self._window = window
        self._models = models
        self._still_wanted = still_wanted
        self._settler = settler
        self._delivery = delivery
        self._learned = learned
        self.closed = False

    def close(self) -> None:
        """Announce nothing more."""
        self.closed = True
        self._window.touch()

    async def announce(self, chosen: Sequence[Held]) -> Batch | None:
        """Announce the chosen images and return them as a batch. Returns None when the model cannot be used (they are
        refused), when none of them is wanted any more, after `close`, or when they must be chosen again: after a load
        of the model, or since a newer dispatch has replaced one of them. Raises EngineLost.
        """
        model = chosen[0].job.render.model
        engine, fault = self._models.engine(model), self._models.fault(model)
        if fault is not None:
            await self._refuse_all(chosen, fault)
            return None
        if not engine.loaded:
            await self._load(engine, chosen)
            return None
        return await self._start(engine, chosen)

    async def _load(self, engine: Engine, chosen: Sequence[Held]) -> None:
        """Load the model if any of the chosen images is still wanted. If the load fails, all of the model's waiting
        images are refused. Afterwards every waiting image gets its batch key again, since a loaded model may refuse
        what it had a key for before.
        """
        await self._still_wanted.before_batch(chosen)
        wanted = [held for held in chosen if held.state is State.WAITING]
        if not wanted or self.closed:
            return
        model = wanted[0].job.render.model
        fault = self._models.fault(model)
        if fault is None:
            fault = await self._models.load(engine, wanted_since_s=min(held.existed_s for held in wanted))
        if fault is not None:
            await self._refuse_all([each for each in self._window.waiting() if each.job.render.model == model], fault)
        for held in self._window.waiting():
            try:
                self._window.rekey(held, self._models.key(held.job.render))
            except Unsupported as error:
                if held.state is State.WAITING:
                    await self._delivery.refuse(held, *refusal_of(error))

    async def _refuse_all(self, waiting: Sequence[Held], fault: ModelFault) -> None:
        for held in waiting:
            if held.state is State.WAITING:  # an image may be dropped while others are refused
                await self._delivery.refuse(held, fault.failure, fault.reason)

    async def _start(self, engine: Engine, chosen: Sequence[Held]) -> Batch | None:
        """Ask core whether the images are wanted, and report `started` for those that are. When a newer dispatch has
        replaced one of them meanwhile, return None so that all are chosen again: the newer one may be solo.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        jobs = [held.job for held in chosen]
        await self._still_wanted.before_batch(chosen)
        if any(held.job is not job for held, job in zip(chosen, jobs, strict=True)):
            return None
        members = tuple(held for held in chosen if held.state is State.WAITING)
        if not members or self.closed:
            return None
        new_id = self._context.new_id
        batch = Batch(id=new_id("bat"), engine=engine, key=members[0].key, members=members, solo=members[0].job.solo)
        for held in members:
            self._window.begin_attempt(held, new_id("att"), State.STARTED)
        await self._settler.started(batch)
        await self._context.failpoints.reach("worker.batched")
        self._learned.measurements.observe(ANNOUNCE_KIND, loop.time() - began_s)
        self._models.touch(engine)  # the model used last is the last to make room for another
        return batch
