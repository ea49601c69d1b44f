"""A simulated GPU thread: the engine's blocking work takes virtual time, and may hang or fail.

The work runs on a greenlet, so that it can be left in the middle of a `sleep` and taken up again by a timer.
"""

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet  # type: ignore[import-untyped]

from tests.simulation import poison
from tests.simulation.loop import Actor
from tests.simulation.world import World
from worker.engines.base import Bounds
from worker.engines.contract import Done, Picture, RenderJob, Report, Stepped
from worker.engines.emulated import EmulatedEngine
from worker.engines.errors import BadOutput, EngineLost, LoadFailed, OutOfMemory

T = TypeVar("T")
MODEL = "demo"
HALF = "half"
"""A model that the first worker cannot load."""

DEAD = "dead"
"""One that no worker can load."""

SECOND = "second"
"""One that the second worker alone lists."""

STEP_S = 0.15
_FOR_EVER_S = 1e7


class GpuThread:
    """The worker's port `Threads`, one piece of work at a time."""

    def __init__(self, world: World, actor: Actor) -> None:
        self._world = world
        self._actor = actor

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`; it goes on even when nobody waits for it any more."""
        return await asyncio.shield(self._world.loop.spawn(self._actor, self._drive(work), "gpu.thread"))

    async def _drive(self, work: Callable[[], T]) -> T:
        thread: Any = greenlet(work)
        thread.gr_context = self._actor.context()
        value = thread.switch()
        try:
            while not thread.dead:
                await asyncio.sleep(value)
                value = thread.switch()
        finally:
            if not thread.dead:
                thread.throw(GreenletExit)
        return value  # type: ignore[no-any-return]


class Inline:
    """The encode threads: quick enough to be done at once."""

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`."""
        await asyncio.sleep(0)
        return work()


def sleep(seconds: float) -> None:
    """Called on the GPU thread."""
    parent: Any = getcurrent().parent
    parent.switch(seconds)


class SimEngine(EmulatedEngine):
    """Draws pictures that say whose they are. `trouble` is what happens at the next step: hang, memory, error, lost.

    `killed` is called by poison that takes the process along.
    """

    def __init__(
        self,
        world: World,
        dice: Random,
        admitted: Callable[[Sequence[RenderJob]], None],
        troubled: Callable[[], None],
        killed: Callable[[], None],
        *,
        model: str = MODEL,
        broken: bool = False,
    ) -> None:
        super().__init__(model=model, step_s=STEP_S, alpha=0.3, max_batch=4, bounds=Bounds.square(256), sleep=sleep)
        self._world = world
        self._dice = dice
        self._admitted = admitted
        self._troubled = troubled
        self._killed = killed
        self._broken = broken
        self.trouble = ""

    def load(self) -> None:
        sleep(self._dice.random())
        if self._broken:
            self._world.faults["model_broken"] += 1
            raise LoadFailed("simulated: half a file")
        super().load()

    def admit(self, jobs: Sequence[RenderJob]) -> None:
        self._admitted(jobs)
        super().admit(jobs)

    def step(self, report: Report) -> Stepped:
        trouble, self.trouble = self.trouble, ""
        if trouble and self._members:
            self._troubled()
            self._world.faults[f"gpu_{trouble}"] += 1
            self._fail(trouble)
        for job, _ in self._members.values():
            kind = _poison(job)
            if kind and kind != "nan" and job.id not in self._parked:
                self._world.faults[f"poison_{kind}"] += 1
                self._fail(kind)
        return super().step(report)

    def decode(self, done: Done) -> Picture:
        job = done.result
        assert isinstance(job, RenderJob)
        if _poison(job) == "nan":
            self._world.faults["poison_nan"] += 1
            raise BadOutput("simulated: not a number")
        return super().decode(done)

    def _fail(self, how: str) -> None:
        self._world.note(f"gpu {how}: {', '.join(self._members)}")
        match how:
            case "hang":
                sleep(_FOR_EVER_S)
            case "killed":
                self._killed()
                sleep(_FOR_EVER_S)
            case "memory":
                raise OutOfMemory
            case "error":
                raise ZeroDivisionError("simulated")
            case _:
                raise EngineLost


def _poison(job: RenderJob) -> str:
    return poison.kind(job.guidance_scale, int(job.id.rpartition("/")[2]))
