"""One schedule from its seed: clients, core and two workers in a storm; then good weather, quiet, and the verdict."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.simulation import floods
from tests.simulation.checker import Checker
from tests.simulation.clients import Client
from tests.simulation.core_process import CoreProcess
from tests.simulation.faults import STORM_S, Fault, draw_plan
from tests.simulation.log import Disk
from tests.simulation.loop import Deadlock, Livelock, VirtualLoop
from tests.simulation.net import Net
from tests.simulation.queues import SimQueue
from tests.simulation.restore import Backup
from tests.simulation.rpc import CoreLine
from tests.simulation.store import SimBucket, SimErasures
from tests.simulation.storm import Storm
from tests.simulation.worker_process import WorkerProcess
from tests.simulation.world import World

QUIET_WITHIN_S = 600.0
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one schedule. `digest` is that of its trace."""

    seed: str
    plan: Sequence[Fault]
    violations: Sequence[str]
    stuck: Sequence[str]
    digest: str
    faults: Counter[str]
    transitions: Counter[str]
    accepted: int
    failed: int
    events: int
    lines: Sequence[str]

    @property
    def good(self) -> bool:
        """Whether nothing was lost, stuck, double or otherwise wrong."""
        return not self.violations and not self.stuck


class Stage:
    """Everything of one schedule, joined."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.net = Net(world)
        temp = SimBucket("temp", self.net)
        self.buckets = {"temp": temp, "public": SimBucket("public", self.net, temp)}
        self.erasures = SimErasures(self.net)
        self.checker = Checker(world, self.buckets["public"])
        self.protocol = self.checker.protocol
        dead = SimQueue("dead", world, self.net, protocol=self.protocol)
        self.queues = {"dead": dead}
        for name in ("jobs", "replies"):
            self.queues[name] = SimQueue(name, world, self.net, dead=dead, protocol=self.protocol, told_lost=self._lost)
        self.disk = Disk(world, self.net, self.checker)
        self.line = CoreLine(world, self.net)
        self.core = CoreProcess(
            world,
            disk=self.disk,
            line=self.line,
            checker=self.checker,
            queues=self.queues,
            buckets=self.buckets,
            erasures=self.erasures,
        )
        self.checker.erasure.kept_ms = self.core.tuning.keep.shortest_ms
        self.backup = Backup(self)
        made = [
            WorkerProcess(world, number, line=self.line, checker=self.checker, queues=self.queues, temp=temp)
            for number in (1, 2)
        ]
        self.workers = {each.name: each for each in made}
        self.checker.asking = all(each.asks for each in made)
        self.clients = [
            Client(world, number, self.line, self.checker) for number in range(world.dice("clients").randint(6, 9))
        ]
        flooding = floods.tenants(world, self.line, self.checker, cap=self.core.tuning.backlog_cap)
        self.everybody: list[floods.Actor] = [*self.clients, *flooding]
        self.storm = Storm(
            world,
            self.checker,
            core=self.core,
            workers=self.workers,
            queues=self.queues,
            temp=temp,
            disk=self.disk,
        )

    def quiet(self) -> bool:
        """Whether every request has ended, has been seen to, and nothing is left anywhere."""
        queues = len(self.queues["jobs"]) + len(self.queues["replies"])
        return (
            self.checker.quiet()
            and all(client.done for client in self.everybody)
            and all(worker.idle for worker in self.workers.values())
            and not queues
            and not self.disk.content.to_delete
        )

    def left(self) -> list[str]:
        """What is not quiet."""
        stuck = [
            f"{each.id} is open: {[image.phase.name for image in each.images]}"
            for each in self.checker.states.values()
            if each.open
        ]
        stuck += [f"{each.name}'s client still waits" for each in self.everybody if not each.done]
        stuck += [f"{worker.name} holds something" for worker in self.workers.values() if not worker.idle]
        stuck += [f"the objects of {each} are not deleted" for each in self.disk.content.to_delete]
        return stuck + [
            f"{name} holds {len(q)} messages" for name, q in self.queues.items() if len(q) and name != "dead"
        ]

    def _lost(self, body: bytes) -> None:
        attempt = self.protocol.attempt_in(body)
        if attempt:
            self.checker.troubled.add(attempt)


def simulate(seed: str, plan: Sequence[Fault] | None = None, *, traced: bool = False) -> Outcome:
    """Run one schedule. With a `plan` of its own instead of the seed's."""
    loop = VirtualLoop()
    world = World(seed, loop, traced=traced)
    stage = Stage(world)
    chosen = draw_plan(world.dice("plan")) if plan is None else list(plan)
    stuck: list[str] = []
    try:
        stuck = loop.run(_play(stage, chosen))
    except (Deadlock, Livelock) as error:
        stuck = [f"{type(error).__name__}: {error}"]
    world.violations += [f"nobody handled {report}" for report in loop.unhandled]
    return Outcome(
        seed=seed,
        plan=chosen,
        violations=world.violations,
        stuck=stuck,
        digest=world.digest,
        faults=world.faults,
        transitions=world.transitions,
        accepted=len(stage.checker.accepted),
        failed=stage.checker.failed,
        events=len(stage.disk.content.events),
        lines=world.lines,
    )


async def _play(stage: Stage, plan: Sequence[Fault]) -> list[str]:
    """What is stuck at the end."""
    world, loop = stage.world, stage.world.loop
    stage.core.start()
    for worker in stage.workers.values():
        worker.start()
    begun_s = loop.time()
    for fault in plan:
        loop.call_at(begun_s + fault.at_s, stage.storm.strike, fault)
    loop.call_at(begun_s + stage.backup.at_s, stage.backup.take)
    clients = [loop.create_task(client.run(), name=client.name) for client in stage.everybody]
    over_s = max([STORM_S / 2, *(fault.at_s + fault.lasts_s for fault in plan)])
    deadline_s = begun_s + over_s + QUIET_WITHIN_S
    while loop.time() < deadline_s and not world.broken.is_set():
        if loop.time() > begun_s + over_s and stage.quiet():
            break
        floods.look_at_the_books(world, stage.line, stage.checker)
        await asyncio.sleep(_LOOK_S)
    stuck = [] if world.broken.is_set() or stage.quiet() else stage.left()
    if not world.violations and not stuck:
        stage.checker.at_the_end()
        stage.checker.erasure.at_the_end(stage.disk.content, stage.buckets["temp"])
    for client in clients:
        if client.done() and not client.cancelled() and client.exception() is not None:
            world.violate(f"{client.get_name()}: {client.exception()!r}")
    if not world.violations and not stuck:
        stuck = await stage.backup.put_back()
    world.note("end" + "".join(f"; {each}" for each in stuck))
    return stuck


@contextmanager
def silence() -> Any:
    """No logging inside: a schedule makes thousands of lines that the trace says better."""
    import structlog

    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)
