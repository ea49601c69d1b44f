"""A worker as a process: killed, stopped and continued, drained, or ended by its own watchdog; always started again."""

import asyncio
from collections.abc import Sequence

from tests.simulation.checker import Checker
from tests.simulation.core_process import VISIBILITY_S, NoFailpoints
from tests.simulation.gpu import DEAD, HALF, MODEL, SECOND, GpuThread, Inline, SimEngine
from tests.simulation.loop import Actor
from tests.simulation.queues import SimQueue
from tests.simulation.rpc import Asking, CoreLine
from tests.simulation.store import SimBucket
from tests.simulation.world import World
from worker.assembly import Ports, Tuning, Worker
from worker.engines.contract import RenderJob
from worker.engines.errors import EngineLost
from worker.gpu.watchdog import Hung
from worker.holding.types import Held
from worker.ports import Holding


class _Life:
    """One life: its actor, its objects, and what it knows that it should not forget."""

    def __init__(self, name: str) -> None:
        self.actor = Actor(name)
        self.draining = asyncio.Event()
        self.attempts: list[str] = []
        self.ended: dict[str, Held] = {}
        self.worker: Worker | None = None
        self.engine: SimEngine | None = None
        self.others: dict[str, SimEngine] = {}


class WorkerProcess:
    """`start` it once."""

    def __init__(
        self,
        world: World,
        number: int,
        *,
        line: CoreLine,
        checker: Checker,
        queues: dict[str, SimQueue],
        temp: SimBucket,
    ) -> None:
        self.name = f"worker{number}"
        self._lists = (HALF, DEAD) if number == 1 else (HALF, DEAD, SECOND)
        self._broken = {HALF, DEAD} if number == 1 else {DEAD}
        self.queues = queues
        self._world = world
        self._line = line
        self._checker = checker
        self._temp = temp
        self._dice = world.dice(self.name)
        self._lives = 0
        self._life: _Life | None = None
        self._back_s = 1.0
        self._keeps_name = self._dice.random() < 0.5
        self.asks = self._dice.random() < 0.8

    @property
    def idle(self) -> bool:
        """Whether it runs and holds nothing."""
        life = self._life
        return life is not None and life.worker is not None and not life.worker.window.held()

    def start(self) -> None:
        """A new life."""
        self._lives += 1
        life = self._life = _Life(f"{self.name}.{self._lives}")
        self._world.note(f"{life.actor.name} starts")
        life.engine = self._engine(life, MODEL)
        life.others = {name: self._engine(life, name, broken=name in self._broken) for name in self._lists}
        task = self._world.loop.spawn(life.actor, self._live(life), "main")
        task.add_done_callback(lambda done: self._ended(life, done), context=self._world.loop.neutral)

    def _engine(self, life: _Life, model: str, *, broken: bool = False) -> SimEngine:
        return SimEngine(
            self._world,
            self._dice,
            lambda jobs: self._admitted(life, jobs),
            lambda: self.trouble(life),
            lambda: self._poisoned(life),
            model=model,
            broken=broken,
        )

    def kill(self, away_s: float) -> bool:
        """SIGKILL. False when it was not running."""
        life = self._life
        if life is None:
            return False
        self.trouble(life)
        self._die(life, away_s)
        return True

    def _poisoned(self, life: _Life) -> None:
        """Killed by what it renders: no fault's doing, so that nothing excuses what comes of it for others."""
        if self._life is life:
            self._world.loop.call_later(0.0, self._die, life, self._back_s, context=self._world.loop.neutral)

    def _die(self, life: _Life, away_s: float) -> None:
        if self._life is life:
            self._world.note(f"{life.actor.name} dies")
            self._life = None
            self._world.loop.freeze(life.actor)
            self._world.loop.call_later(away_s, self.start, context=self._world.loop.neutral)

    def drain(self, away_s: float) -> bool:
        """SIGTERM."""
        life = self._life
        if life is None or life.actor.frozen or life.draining.is_set():
            return False
        self._world.note(f"{life.actor.name} drains")
        self.trouble(life)
        self._back_s = away_s
        life.draining.set()
        return True

    def pause(self, seconds: float) -> bool:
        """SIGSTOP, and SIGCONT after a while: it goes on with what it held, knowing nothing."""
        life = self._life
        if life is None or life.actor.frozen:
            return False
        self._world.note(f"{life.actor.name} is stopped")
        self.trouble(life)
        self._world.loop.freeze(life.actor)

        def go_on() -> None:
            if self._life is life:
                self._world.note(f"{life.actor.name} is continued")
                self._world.loop.thaw(life.actor)

        self._world.loop.call_later(seconds, go_on, context=self._world.loop.neutral)
        return True

    def spoil(self, trouble: str) -> bool:
        """The GPU's next step goes wrong."""
        life = self._life
        if life is None or life.engine is None:
            return False
        life.engine.trouble = trouble
        return True

    def trouble(self, life: _Life | None = None) -> None:
        """Whatever this worker has in hand may come to nothing, and that is a fault's doing."""
        life = life or self._life
        if life is not None:
            self._checker.troubled.update(life.attempts)

    async def _live(self, life: _Life) -> None:
        life.worker = Worker(self._ports(life), self._tuning(life))
        await life.worker.run(life.draining.wait)

    def _ended(self, life: _Life, task: "asyncio.Task[None]") -> None:
        if self._life is not life:
            return
        error = task.exception()
        self._world.note(f"{life.actor.name} ended: {error!r}")
        if error is None:
            if not life.draining.is_set():
                self._world.violate(f"{life.actor.name} returned")
        elif not _only(error, (Hung, EngineLost)):
            self._world.violate(f"{life.actor.name} ended by itself: {error!r}")
        self._die(life, self._back_s)

    def _admitted(self, life: _Life, jobs: Sequence[RenderJob]) -> None:
        for job in jobs:
            generation_id, _, index = job.id.rpartition("/")
            self._checker.protocol.admitted(life.actor.name, (generation_id, int(index)))
            held = life.worker and life.worker.window.get(job.id)
            if held and life.ended.get(job.id) is held:
                self._world.violate(f"{life.actor.name} renders {job.id}, of whose end it was told")
        self._world.note(f"{life.actor.name} renders {', '.join(job.id for job in jobs)}")

    def _new_id(self, life: _Life, prefix: str) -> str:
        made = f"{prefix}_{life.actor.name}_{self._dice.getrandbits(32):08x}"
        if prefix == "att":
            life.attempts.append(made)
            if self._world.stormy:
                self._checker.troubled.add(made)
        return made

    def _heard(self, life: _Life, held: Holding, wanted: bool) -> None:
        if not wanted:
            self._checker.protocol.unwanted.add((life.actor.name, (held.generation_id, held.index)))
        name = f"{held.generation_id}/{held.index}"
        # What it has let go of it may get again, and begin if it can ask nobody then.
        holds = life.worker and life.worker.window.get(name)
        if self._checker.told(life.actor.name, held.generation_id, wanted=wanted) and holds:
            life.ended[name] = holds

    def _tuning(self, life: _Life) -> Tuning:
        return Tuning(
            worker_id=self.name if self._keeps_name else life.actor.name,
            visibility_s=VISIBILITY_S,
            drain_s=6.0,
            window_images=8,
            uploads=4,
            line_images=4,
            upload_deadline_s=10.0,
            hang_s=8.0,
            models_loaded=2,
        )

    def _ports(self, life: _Life) -> Ports:
        assert life.engine is not None
        return Ports(
            jobs=self.queues["jobs"],
            replies=self.queues["replies"],
            quarantine=self.queues["dead"],
            temp=self._temp,
            still_wanted=Asking(self._line, lambda held, wanted: self._heard(life, held, wanted))
            if self.asks
            else None,
            engines={MODEL: life.engine, **life.others},
            gpu_thread=GpuThread(self._world, life.actor),
            encode_threads=Inline(),
            failpoints=NoFailpoints(),
            clock=self._world.loop.time,
            wall_ms=self._world.wall_ms,
            new_id=lambda prefix: self._new_id(life, prefix),
            rng=self._dice.random,
        )


def _only(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_only(each, kinds) for each in error.exceptions)
    return isinstance(error, kinds)
