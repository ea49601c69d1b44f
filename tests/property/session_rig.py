"""A whole worker under virtual time before a hostile day: what comes when, who is poison, who is cancelled, what fails.

`play` lives one `Day` through and returns what was wrong about it. The worker's objects are production's; queues and
bucket are in memory, and the GPU thread is a greenlet whose work takes virtual time, so a day of minutes takes
milliseconds and happens the same way each time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from infra.retry import Retryable
from loadtests.bench.rig import gpu_seconds
from schema import fast, pb
from tests.property.session_engine import HostileEngine
from tests.simulation.gpu import GpuThread, Inline
from tests.simulation.loop import Actor, VirtualLoop
from tests.unit.worker.rig import Rig, job, quiet
from worker.assembly import Worker
from worker.engines.emulated import NotEmulated, read_emulated
from worker.tuning import Mode, Tuning

F = pb.AttemptFailure
REASONS = {
    "raise": "MODEL_ERROR",
    "admit": "MODEL_ERROR",
    "decode": "MODEL_ERROR",
    "died": "MODEL_ERROR",
    "hang": "HUNG",
    "nan": "BAD_OUTPUT",
    "size": "BAD_OUTPUT",
    "memory": "OUT_OF_MEMORY",
}
QUIET_S = 600.0
NEAR = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One image. `fault` is empty or one of REASONS; `cancelled_s` is when it is not wanted any more, 0 for never;
    `copies_s` are times at which its message is sent once more.
    """

    at_s: float
    steps: int
    side_px: int = 64
    priority: int = 0
    solo: bool = False
    fault: str = ""
    cancelled_s: float = 0.0
    copies_s: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """The jobs queue, the replies queue or the bucket cannot be reached."""

    what: str
    at_s: float
    for_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """`fits`: images that the GPU's memory holds; `drained_s`: when the worker is told to go, 0: after all."""

    arrivals: Sequence[Arrival]
    outages: Sequence[Outage] = ()
    joins: bool = True
    parks: bool = True
    evicts: bool = True
    max_batch: int = 4
    fits: int = 1_000
    line_images: int = 16
    mode: Mode = Mode.OVERLAPPED
    drained_s: float = 0.0


def play(day: Day) -> list[str]:
    """What was wrong. Raises what the worker raises."""
    return VirtualLoop().run(_Play(day).live())


def seconds(day: Day) -> tuple[Mapping[str, float], float]:
    """The worker's ledger at the end, and the GPU's longest pause as its engine saw it. Nothing may go wrong."""
    play = _Play(day)
    wrong = VirtualLoop().run(play.live())
    assert not wrong, wrong
    return play.spent, play.engine.longest_gap_s


class _Play:
    """One day."""

    def __init__(self, day: Day) -> None:
        self._day = day
        self._wrong: list[str] = []

    async def live(self) -> list[str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.engine = engine = HostileEngine(self._day, self._complain)
        rig = self._rig = Rig(engine)  # type: ignore[arg-type]
        self._began_s = loop.time()
        thread = GpuThread(SimpleNamespace(loop=loop), Actor("gpu"))  # type: ignore[arg-type]
        self._ports = replace(
            rig.ports, gpu_thread=thread, encode_threads=Inline(), wall_ms=lambda: int(loop.time() * 1000)
        )
        tuning = Tuning(
            worker_id="w",
            visibility_s=20,
            receive_wait_s=1,
            drain_s=30.0,
            window_images=12,
            uploads=2,
            line_images=self._day.line_images,
            wanted_every_s=0.25,
            hang_s=2.0,
            mode=self._day.mode,
        )
        rig.worker = Worker(self._ports, tuning)
        engine.is_announced = self._is_announced
        async with asyncio.TaskGroup() as group:
            group.create_task(rig.worker.run(rig.draining.wait), name="worker")
            scenes = [*map(self._arrives, range(len(self._day.arrivals))), *map(self._fails, self._day.outages)]
            tasks = [group.create_task(each) for each in scenes]
            if self._day.drained_s:
                await asyncio.sleep(self._day.drained_s)
            else:
                await asyncio.wait(tasks)
                await quiet(self._all_done, QUIET_S)
                self._account()
            rig.draining.set()
        await self._reckon()
        return self._wrong

    def _complain(self, what: str) -> None:
        self._wrong.append(f"{asyncio.get_running_loop().time() - self._began_s:.3f} s: {what}")

    def _is_announced(self, job_id: str) -> bool:
        held = self._rig.worker.window.get(job_id)
        return held is not None and any(
            each.attempt_id == held.attempt_id for each in self._rig.of(fast.ImageStarted) if held.attempt_id
        )

    async def _arrives(self, number: int) -> None:
        plan = self._day.arrivals[number]
        began_s = asyncio.get_running_loop().time()
        await asyncio.sleep(plan.at_s)
        message = job(
            number,
            steps=plan.steps,
            size=plan.side_px,
            priority=plan.priority,
            solo=plan.solo,
            image_seed=number,
            requested_at_ms=int((began_s + plan.at_s) * 1000),
        )
        await self._send(message)
        later: list[tuple[float, Callable[[], Awaitable[None]]]] = []
        later += [(each, lambda: self._send(message)) for each in plan.copies_s]
        later += [(plan.cancelled_s, lambda: self._cancel(number))] if plan.cancelled_s else []
        for at_s, act in sorted(later, key=lambda each: each[0]):
            await asyncio.sleep(max(0.0, began_s + at_s - asyncio.get_running_loop().time()))
            await act()

    async def _send(self, message: fast.ImageJob) -> None:
        while True:
            try:
                return await self._rig.send(message)
            except Retryable:
                await asyncio.sleep(0.2)

    async def _cancel(self, number: int) -> None:
        self._rig.wanted.unwanted.add(f"g{number}")

    async def _fails(self, outage: Outage) -> None:
        rig = self._rig
        where: Any = {"jobs": rig.jobs, "replies": rig.replies.queue, "store": rig.bucket}[outage.what]
        await asyncio.sleep(outage.at_s)
        where.unreachable = True
        await asyncio.sleep(outage.for_s)
        where.unreachable = False

    async def _all_done(self) -> None:
        depth = await self._rig.jobs.depth()
        assert not self._rig.worker.window.held(), [(each.id, each.state) for each in self._rig.worker.window.held()]
        assert depth.visible + depth.in_flight == 0, depth

    def _account(self) -> None:
        """Every second of the GPU's has one cause."""
        self.spent = spent = gpu_seconds(self._rig.worker.metrics)
        wall_s = asyncio.get_running_loop().time() - self._began_s
        for name in ("unattributed", "overlapping"):
            if spent[name] > NEAR * wall_s:
                self._complain(f"{spent[name]:.3f} s of {wall_s:.3f} s are {name}: {spent}")
        told_s = sum(seconds for name, seconds in spent.items() if name != "overlapping")
        if abs(told_s - wall_s) > NEAR * wall_s:
            self._complain(f"{told_s:.3f} s told of {wall_s:.3f} s: {spent}")

    async def _reckon(self) -> None:
        """Every image has ended once, for its reason; every picture is its own."""
        rig = self._rig
        rendered, failed = rig.of(fast.ImageRendered), rig.of(fast.ImageAttemptFailed)
        answered = {each.attempt_id for each in rendered} | {each.attempt_id for each in failed}
        for started in rig.of(fast.ImageStarted):
            name = started.image.generation_id
            if started.attempt_id not in answered and name not in rig.wanted.unwanted:
                self._complain(f"{name} was announced and never heard of again")
        for reply in rendered:
            self._look(reply)
        left = await rig.jobs.depth()
        unreachable = any(each.what == "jobs" for each in self._day.outages)  # nothing can be given back then
        if (left.in_flight and not unreachable) or (left.visible and not self._day.drained_s):
            self._complain(f"{left} on the queue")
        for number, plan in enumerate(self._day.arrivals):
            ends = ["rendered" for each in rendered if each.image.generation_id == f"g{number}"]
            ends += [str(F(each.failure).name) for each in failed if each.image.generation_id == f"g{number}"]
            if problem := self._problem(f"g{number}", plan, ends):
                self._complain(f"g{number} ended {ends}: {problem}")

    def _look(self, reply: Any) -> None:
        name = reply.image.generation_id
        data, _ = self._rig.bucket.objects[reply.temp_key]
        try:
            found = read_emulated(data)
        except NotEmulated as error:
            return self._complain(f"{name}: {error}")
        if found != (name, 0, int(name.removeprefix("g"))):
            self._complain(f"{name} got the picture of {found}")
        return None

    def _problem(self, name: str, plan: Arrival, ends: Sequence[str]) -> str:
        if len(ends) > 1:
            return "more than once"
        may_be_away = bool(self._day.drained_s) or bool(plan.cancelled_s)
        if not ends:
            return "" if may_be_away else "it is lost"
        expected = REASONS[plan.fault] if plan.fault else "rendered"
        if ends[0] == expected or (ends[0] == "DRAINED" and self._day.drained_s):
            return ""
        return f"expected {expected}"
