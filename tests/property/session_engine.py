"""The engine of the hostile day: it takes virtual time, fails as planned, and holds the worker to the contract."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.simulation.gpu import sleep
from worker.engines.base import Bounds
from worker.engines.contract import Capabilities, Done, Picture, RenderJob, Report, Stepped
from worker.engines.emulated import EmulatedEngine
from worker.engines.errors import BadOutput, EngineDied, OutOfMemory

if TYPE_CHECKING:
    from tests.property.session_rig import Arrival, Day

STEP_S = 0.05
RESTART_S = 0.7


class HostileEngine(EmulatedEngine):
    """Tells `complain` of every breach of the contract. `is_announced` says whether a job's start was accepted;
    `longest_gap_s` is the longest pause between two calls.
    """

    def __init__(self, day: "Day", complain: Callable[[str], None]) -> None:
        super().__init__(
            model="m", step_s=STEP_S, alpha=0.3, max_batch=day.max_batch, bounds=Bounds.square(512), sleep=sleep
        )
        self.capabilities = Capabilities(
            join_midway=day.joins,
            park=day.joins and day.parks,
            evict_one=day.joins or day.evicts,
            restartable=True,
            max_batch=day.max_batch,
        )
        self.is_announced: Callable[[str], bool] = lambda _: True
        self._day = day
        self._complain = complain
        self._killed = False
        self._dead = False
        self._life = 0
        self._undecoded: set[str] = set()
        self._ended_s = math.inf
        self.longest_gap_s = 0.0

    def load(self) -> None:
        sleep(1.0)
        super().load()

    def admit(self, jobs: Sequence[RenderJob]) -> None:
        self._be_alive("admit")
        for job in jobs:
            if job.id in self._members:
                self._complain(f"{job.id} is admitted twice")
            if not self.is_announced(job.id):
                self._complain(f"{job.id} is admitted and was not announced")
            if not self.capabilities.join_midway and self._members:
                self._complain("somebody joins who cannot")
        super().admit(jobs)
        if len({self.key(job) for job, _ in self._members.values()}) > 1:
            self._complain("two keys go together")
        if len(self._members) > 1 and any(self._plan(job_id).solo for job_id in self._members):
            self._complain(f"a solo image goes with others: {list(self._members)}")
        if any(self._fault(job.id) == "admit" for job in jobs):
            sleep(STEP_S)
            raise ZeroDivisionError

    def step(self, report: Report) -> Stepped:
        self._be_alive("step")
        self._begin()
        stepped = self._one(report)
        while not self.capabilities.join_midway and not (stepped.finished or stepped.evicted):
            stepped = self._one(report)
        self._undecoded |= {done.job_id for done in stepped.finished}
        self._ended_s = asyncio.get_running_loop().time()
        finished = [Done(job_id=each.job_id, result=(self._life, each.result)) for each in stepped.finished]
        return Stepped(finished=finished, evicted=stepped.evicted)

    def park(self, job_id: str) -> None:
        if not self.capabilities.park or job_id not in self._members:
            self._complain(f"{job_id} is parked")
        super().park(job_id)

    def unpark(self, job_id: str) -> None:
        if job_id not in self._parked:
            self._complain(f"{job_id} is called back, and was not aside")
        super().unpark(job_id)

    def decode(self, done: Done) -> Picture:
        self._be_alive("decode")
        self._begin()
        assert isinstance(done.result, tuple)
        life, job = done.result
        if life != self._life:
            self._complain(f"{done.job_id} is decoded after a reset")
        if done.job_id not in self._undecoded:
            self._complain(f"{done.job_id} is decoded twice")
        self._undecoded.discard(done.job_id)
        sleep(STEP_S / 2)
        self._ended_s = asyncio.get_running_loop().time()
        match self._fault(done.job_id):
            case "nan":
                raise BadOutput("not finite")
            case "size":
                return Picture(width=8, height=8, rgb=bytes(192))
            case "decode":
                raise ZeroDivisionError
        return super().decode(Done(job_id=done.job_id, result=job))

    def reset(self) -> None:
        self._life += 1
        self._undecoded.clear()
        super().reset()
        if self._dead:
            sleep(RESTART_S)
        self._dead = self._killed = False

    def kill(self) -> None:
        self._killed = True

    def _one(self, report: Report) -> Stepped:
        at_work = [job_id for job_id in self._members if job_id not in self._parked]
        if len(at_work) > self.capabilities.max_batch:
            self._complain(f"{len(at_work)} share a step")
        if len(self._members) > 3 * self.capabilities.max_batch:
            self._complain(f"{len(self._members)} have begun")
        if len(at_work) > self._day.fits:
            sleep(STEP_S)
            raise OutOfMemory
        for job_id in at_work:
            self._strike(job_id)
        stepped = super().step(report)
        if self._killed:
            self._die()
        return stepped

    def _strike(self, job_id: str) -> None:
        job, done = self._members[job_id]
        if done < job.num_inference_steps // 2:
            return
        match self._fault(job_id):
            case "raise":
                sleep(STEP_S)
                raise ZeroDivisionError
            case "memory":
                raise OutOfMemory
            case "died":
                self._die()
            case "hang":
                while not self._killed:
                    sleep(STEP_S)
                self._die()

    def _die(self) -> None:
        self._dead = True
        raise EngineDied

    def _begin(self) -> None:
        self.longest_gap_s = max(self.longest_gap_s, asyncio.get_running_loop().time() - self._ended_s)

    def _be_alive(self, call: str) -> None:
        if self._dead:
            self._complain(f"{call} after its death")
        if self._killed:
            self._die()

    def _plan(self, job_id: str) -> "Arrival":
        return self._day.arrivals[int(job_id.partition("/")[0].removeprefix("g"))]

    def _fault(self, job_id: str) -> str:
        return self._plan(job_id).fault
