"""The production worker over a queue and a store in memory, for benchmarks: real threads, any engine.

`serving` runs it; the engine is wrapped in `TimedEngine`, which measures on the GPU thread. `bare` drives the same
engine in full batches with nothing else around it: the yardstick. Every picture is checked, every image counted.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from typing import Any

from infra.clock import wall_ms
from infra.failpoints import Failpoints
from loadtests.bench.engine import TimedEngine
from loadtests.bench.memory import MemoryJobs, MemoryReplies, MemoryStore
from schema import fast, messages, pb
from worker.assembly import Worker
from worker.demo_model.captions import plain_caption
from worker.demo_model.world import scenes
from worker.engines.contract import Engine, RenderJob
from worker.engines.emulated import NotEmulated, read_emulated
from worker.metrics import Metrics
from worker.ports import Ports, Recorder, record_nothing
from worker.threads import WorkerThreads
from worker.tuning import Mode, Tuning

PNG = pb.OutputFormat(1)
TUNING = Tuning(worker_id="bench", receive_wait_s=1, drain_s=5.0, hang_s=60.0)
LEDGER_GAUGES = {f"darkroom_worker_gpu_{name}_seconds": name for name in ("open_idle", "unattributed", "overlapping")}
Check = Callable[[int, bytes], str]
"""What is wrong with the picture of this number; empty when nothing is."""


class WrongResult(Exception):
    """An image is missing, came twice, or its picture is not its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What all images of a run have in common. Each has its number as seed and a prompt of its own, as in production:
    an engine that caches encoded texts must not gain by it.
    """

    model: str
    side_px: int
    steps: int
    guidance_scale: float = 1.0
    first_prompt: int = 0
    """The prompt of image 0: a later run of the same numbers can have other prompts."""

    def prompt(self, number: int) -> str:
        """A caption that the demo model understands; it repeats itself after some 15,000."""
        captions = _captions()
        return captions[(self.first_prompt + number) % len(captions)]

    def message(self, number: int) -> bytes:
        """The job on the queue."""
        spec = fast.GenerationSpec(
            model=self.model,
            width=self.side_px,
            height=self.side_px,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance_scale,
            seed=number,
            n=1,
            output_format=PNG,
        )
        return messages.encode(
            fast.ImageJob(
                image=fast.ImageRef(generation_id=_name(number), index=0),
                dispatch=1,
                spec=spec,
                prompts=fast.Prompts(prompt=self.prompt(number)),
                image_seed=number,
                requested_at_ms=wall_ms(),
            )
        )

    def job(self, number: int) -> RenderJob:
        """The same job as the engine gets it."""
        return RenderJob(
            id=f"{_name(number)}/0",
            model=self.model,
            width=self.side_px,
            height=self.side_px,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance_scale,
            seed=number,
            prompt=self.prompt(number),
        )


@cache
def _captions() -> Sequence[str]:
    """One of each scene in the plain words of the demo model, shuffled, in the same order always."""
    everything = list(map(plain_caption, scenes()))
    return tuple(random.Random(1).sample(everything, len(everything)))


def emulated_check(number: int, data: bytes) -> str:
    """A Check that reads generation, index and seed out of a picture of the emulated engine."""
    try:
        found = read_emulated(data)
    except NotEmulated as error:
        return str(error)
    return "" if found == (_name(number), 0, number) else f"it is the picture of {found}"


class Rig:
    """One worker that serves. `keep`: pictures are checked by `verify`, not while the worker runs."""

    def __init__(
        self, engine: Engine, tuning: Tuning, check: Check, *, latency_s: float, call_s: float, keep: bool, **ports: Any
    ) -> None:
        self.engine = TimedEngine(engine)
        self.jobs = MemoryJobs(call_s)
        self.store = MemoryStore(latency_s, self._stored)
        self._check = check
        self._keep = keep
        self._kept: dict[int, bytes] = {}
        self._rendered: list[int] = []
        self._wrong: list[str] = []
        self._gpu, self._encode = WorkerThreads("gpu"), WorkerThreads("encode", tuning.encoders)
        ids = count()
        defaults = Ports(
            jobs=self.jobs,
            replies=MemoryReplies(call_s, self._replied),
            quarantine=MemoryReplies(call_s, lambda _: self._wrong.append("a message was quarantined")),
            temp=self.store,
            still_wanted=None,
            engines={engine.facts.model: self.engine},
            gpu_thread=self._gpu,
            encode_threads=self._encode,
            failpoints=Failpoints.from_env(""),
            clock=asyncio.get_running_loop().time,
            wall_ms=wall_ms,
            new_id=lambda prefix: f"{prefix}_{next(ids)}",
            rng=lambda: 0.5,
        )
        self.worker = Worker(replace(defaults, **ports), tuning)

    def feed(self, request: Request, numbers: range) -> None:
        """These images are on the queue now; messages are made as they are received."""
        self._rendered.extend([0] * (numbers.stop - len(self._rendered)))
        self.jobs.feed(map(request.message, numbers))

    async def done(self, deadline_s: float) -> None:
        """Returns once every message fed is deleted, which is after its reply. Raises TimeoutError."""
        async with asyncio.timeout(deadline_s):
            while self.jobs.left():
                await self.jobs.changed()

    def verify(self) -> None:
        """Raises WrongResult unless each image was rendered exactly once and its picture is right."""
        wrong = [*self._wrong]
        wrong += [f"{number}: rendered {times} times" for number, times in enumerate(self._rendered) if times != 1]
        if self._keep:
            found = ((number, self._kept.get(number, b"")) for number in range(len(self._rendered)))
            wrong += [f"{number}: {problem}" for number, data in found if (problem := self._check(number, data))]
        if wrong:
            raise WrongResult(f"{len(wrong)} of {len(self._rendered)}: {'; '.join(wrong[:5])}")

    def close(self) -> None:
        """End the threads."""
        self._gpu.close()
        self._encode.close()

    def _stored(self, key: str, data: bytes) -> None:
        number = _number(key.split("/")[1])
        if self._keep:
            self._kept[number] = data
        elif problem := self._check(number, data):
            self._wrong.append(f"{number}: {problem}")

    def _replied(self, body: bytes) -> None:
        match messages.decode(body):
            case fast.ImageRendered() as rendered:
                self._rendered[_number(rendered.image.generation_id)] += 1
            case fast.ImageAttemptFailed() as failed:
                self._wrong.append(f"{failed.image.generation_id} failed: {failed.detail}")


@asynccontextmanager
async def serving(
    engine: Engine,
    *,
    check: Check = emulated_check,
    latency_s: float = 0.0,
    call_s: float = 0.0,
    mode: Mode = Mode.OVERLAPPED,
    keep: bool = True,
    recorder: Recorder = record_nothing,
    **tuning: Any,
) -> AsyncIterator[Rig]:
    """A worker that serves inside the block and drains at its end.

    Each call to the store takes `latency_s`, each call to a queue `call_s`. `tuning` changes fields of
    `worker.tuning.Tuning`.
    """
    rig = Rig(
        engine,
        replace(TUNING, mode=mode, **tuning),
        check,
        latency_s=latency_s,
        call_s=call_s,
        keep=keep,
        recorder=recorder,
    )
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(rig.worker.run(stop.wait), name="bench.worker")
            try:
                yield rig
            finally:
                stop.set()
    finally:
        rig.close()


def gpu_seconds(metrics: Metrics) -> Mapping[str, float]:
    """The worker's own ledger: seconds by cause, and those without one."""
    found: dict[str, float] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name == "darkroom_worker_gpu_seconds_total":
                found[sample.labels["cause"]] = sample.value
            elif sample.name in LEDGER_GAUGES:
                found[LEDGER_GAUGES[sample.name]] = sample.value
    return found


def bare(engine: Engine, jobs: Sequence[RenderJob], *, batch: int) -> TimedEngine:
    """Renders `jobs` in full batches with nothing else around the engine; returns the timed engine."""
    timed = TimedEngine(engine)
    for at in range(0, len(jobs), batch):
        members = jobs[at : at + batch]
        timed.admit(members)
        left = {job.id for job in members}
        while left:
            for done in timed.step(lambda _: None).finished:
                timed.decode(done)
                left.remove(done.job_id)
    return timed


def _name(number: int) -> str:
    return f"gen_{number:026d}"


def _number(generation_id: str) -> int:
    return int(generation_id.removeprefix("gen_"))
