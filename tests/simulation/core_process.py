"""Core as a process: started over what is on the disk, killed at any await, started again by its supervisor."""

import asyncio

from core.assembly import Core
from core.erasure.retention import Keep
from core.ports import Ports
from core.runtime.public_note import BucketNotes
from core.tuning import Tuning
from infra.loops import Loops
from tests.simulation.checker import Checker
from tests.simulation.log import Disk, SimLog
from tests.simulation.loop import Actor
from tests.simulation.queues import SimQueue
from tests.simulation.rpc import CoreLine
from tests.simulation.store import SimBucket, SimErasures
from tests.simulation.world import World

VISIBILITY_S = 8
DRAIN_S = 3.0
KEPT_S = 100
LOOKS_S = (10.0, 60.0, 120.0)
"""Beyond the longest that a fault keeps a worker from uploading what nobody wants any more."""


class NoFailpoints:
    """Nothing happens at any of them: the simulator needs no names to stop a process anywhere."""

    async def reach(self, name: str) -> None:
        pass

    def reach_now(self, name: str) -> None:
        pass


class CoreProcess:
    """`start` it once; it is up again after every `kill`, a moment later."""

    def __init__(
        self,
        world: World,
        *,
        disk: Disk,
        line: CoreLine,
        checker: Checker,
        queues: dict[str, SimQueue],
        buckets: dict[str, SimBucket],
        erasures: SimErasures,
    ) -> None:
        self._world = world
        self._disk = disk
        self._line = line
        self._checker = checker
        self.queues = queues
        self.buckets = buckets
        self.erasures = erasures
        self._dice = world.dice("core")
        self._actor: Actor | None = None
        self._life = 0
        self.tuning = Tuning(
            jobs_queue="jobs",
            replies_queue="replies",
            visibility_s=VISIBILITY_S,
            backlog_cap=self._dice.choice((10, 10_000)),
            runway=self._dice.choice((0, 4, 8)),
            recheck_cap_s=60.0,
            reply_wait_s=5,
            reply_visibility_s=5,
            dead_letters_s=3.0,
            publishers=4,
            keep=Keep(days=self._dice.choice((0, 0, 0, KEPT_S)) / 86_400),
            erasure_looks_s=LOOKS_S,
        )

    @property
    def up(self) -> bool:
        """Whether it runs."""
        return self._actor is not None

    def start(self) -> None:
        """A new life."""
        self._life += 1
        actor = self._actor = Actor(f"core.{self._life}")
        task = self._world.loop.spawn(actor, self._live(actor), "main")
        task.add_done_callback(lambda done: self._ended(actor, done), context=self._world.loop.neutral)

    def kill(self, away_s: float) -> bool:
        """SIGKILL; up again after `away_s`. False when it was not running."""
        actor = self._actor
        if actor is None:
            return False
        self._world.note(f"{actor.name} dies")
        self._actor = None
        self._world.loop.freeze(actor)
        self._disk.crash()
        self._line.down()
        if self._checker.up_since_s is not None:
            self._checker.up_ms = self._checker.uptime_ms()
            self._checker.up_since_s = None
        self._world.loop.call_later(away_s, self.start, context=self._world.loop.neutral)
        return True

    def stop(self, away_s: float) -> bool:
        """SIGTERM: it drains and ends. False when it was not running, or not yet."""
        actor, core = self._actor, self._line.core
        if actor is None or core is None:
            return False
        self._world.note(f"{actor.name} drains")
        task = self._world.loop.spawn(actor, core.drain(DRAIN_S), "drain")
        task.add_done_callback(lambda _: self._drained(actor, away_s), context=self._world.loop.neutral)
        return True

    def stall(self, seconds: float) -> bool:
        """Nothing runs for a while, though time goes on."""
        actor = self._actor
        if actor is None or actor.frozen:
            return False
        self._world.note(f"{actor.name} stalls")
        self._world.loop.freeze(actor)

        def go_on() -> None:
            if self._actor is actor:
                self._world.note(f"{actor.name} goes on")
                self._checker.thawed(seconds)
                self._world.loop.thaw(actor)

        self._world.loop.call_later(seconds, go_on, context=self._world.loop.neutral)
        return True

    async def _live(self, actor: Actor) -> None:
        self._checker.up_since_s = self._world.loop.time()
        core = Core(self._ports(), self.tuning)
        await core.load()
        await core.introduce()
        async with Loops() as loops:
            core.start(loops)
            self._world.note(f"{actor.name} is up")
            self._line.up(core, actor)
            await asyncio.Event().wait()

    def _ended(self, actor: Actor, task: "asyncio.Task[None]") -> None:
        if self._actor is not actor:
            return
        error = task.exception()
        self._world.note(f"{actor.name} ended: {error!r}")
        if not self._disk.excused(error):
            self._world.violate(f"core ended by itself: {_leaves(error)}")
        self.kill(1.0)

    def _drained(self, actor: Actor, away_s: float) -> None:
        if self._actor is actor:
            self.kill(away_s)

    def _ports(self) -> Ports:
        dice = self._world.dice("core.chance")
        return Ports(
            log=SimLog(self._disk),
            jobs=self.queues["jobs"],
            replies=self.queues["replies"],
            quarantine=self.queues["dead"],
            dead_letters=self.queues["dead"],
            temp=self.buckets["temp"],
            public=self.buckets["public"],
            erasures=self.erasures,
            notes=BucketNotes(self.buckets["public"], "jobs", make=False),
            make=self._make,
            failpoints=NoFailpoints(),
            wall_ms=self._world.wall_ms,
            new_token=lambda: f"{dice.getrandbits(64):016x}",
            new_salt=lambda: dice.randbytes(16),
            rng=dice.random,
        )

    async def _make(self) -> None:
        for queue in self.queues.values():
            await queue.ensure()


def _leaves(error: BaseException | None) -> str:
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(_leaves(each) for each in error.exceptions)
    return repr(error)
