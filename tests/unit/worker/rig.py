"""The whole worker over queues and a bucket in memory, with an engine that fails on order."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar

from infra.clock import wall_ms
from infra.failpoints import Failpoints
from infra.sqs import Outgoing
from schema import fast, messages, pb
from tests.eventually import eventually
from tests.fakes import FakeBucket, FakeQueue
from worker.assembly import Ports, Tuning, Worker
from worker.context import Context
from worker.engines.base import Bounds
from worker.engines.contract import Done, Picture, RenderJob, Report, Stepped
from worker.engines.emulated import EmulatedEngine
from worker.engines.errors import BadOutput, EngineLost, LoadFailed, OutOfMemory
from worker.health import Health
from worker.metrics import Metrics
from worker.ports import Holding, ListedModel, Reply
from worker.threads import WorkerThreads
from worker.time_ledger import TimeLedger

T = TypeVar("T")
MODEL = "m"


class FaultyEngine(EmulatedEngine):
    """Keeps the contract, and fails on order: `raises`, `nan`, `loses` hold generation ids; `fits` images in memory,
    and `says` how many, as if measured.
    """

    def __init__(self, *, step_s: float = 0.001, max_batch: int = 8) -> None:
        super().__init__(model=MODEL, step_s=step_s, alpha=0.3, max_batch=max_batch, bounds=Bounds.square(512))
        self.raises: set[str] = set()
        self.nan: set[str] = set()
        self.loses: set[str] = set()
        self.fits = 1_000
        self.says: int | None = None
        self.ran_out = 0
        self.failing_loads = 0
        self.admitted: list[list[str]] = []
        self.on_admit: Callable[[Sequence[RenderJob]], None] = lambda _: None

    @property
    def running(self) -> int:
        """How many are members."""
        return len(self._members)

    def load(self) -> None:
        if self.failing_loads:
            self.failing_loads -= 1
            raise LoadFailed("the weights are gone")
        super().load()

    def admit(self, jobs: Sequence[RenderJob]) -> None:
        self.on_admit(jobs)
        self.admitted.append([generation(job) for job in jobs])
        super().admit(jobs)

    def step(self, report: Report) -> Stepped:
        members = {generation(job) for job, _ in self._members.values()}
        if len(members) > self.fits:
            self.ran_out += 1
            raise OutOfMemory
        if members & self.loses:
            raise EngineLost
        if members & self.raises:
            raise ZeroDivisionError("a secret prompt made me do it")
        return replace(super().step(report), fits=self.says)

    def decode(self, done: Done) -> Picture:
        if done.job_id.partition("/")[0] in self.nan:
            raise BadOutput("the model gave numbers that are not finite")
        return super().decode(done)


def generation(job: RenderJob) -> str:
    return job.id.partition("/")[0]


def context() -> Context:
    """For a part that is tested alone."""
    clock = asyncio.get_running_loop().time
    return Context(
        worker_id="w",
        metrics=Metrics(),
        health=Health(),
        ledger=TimeLedger(clock()),
        failpoints=Failpoints(),
        clock=clock,
        wall_ms=wall_ms,
        new_id=lambda prefix: f"{prefix}_0",
        rng=lambda: 0.0,
    )


class Sending:
    """FakeQueue as the worker's ReplyQueue; `on_send` sees what was accepted."""

    def __init__(self, queue: FakeQueue) -> None:
        self.queue = queue
        self.accepted: list[Any] = []

    async def send(self, sent: Sequence[Reply]) -> Sequence[bool]:
        answer = await self.queue.send([Outgoing(body=each.body, attributes=each.attributes) for each in sent])
        self.accepted += [decoded(each.body) for each, ok in zip(sent, answer, strict=True) if ok]
        return answer


def decoded(body: bytes) -> Any:
    try:
        return messages.decode(body)
    except messages.BadMessage:
        return body


class Wanted:
    """Core, as far as it knows what is cancelled."""

    def __init__(self) -> None:
        self.unwanted: set[str] = set()
        self.heard: list[Holding] = []
        self.listed: Sequence[ListedModel] = ()

    async def ask(self, worker_id: str, held: Sequence[Holding], models: Sequence[ListedModel]) -> Sequence[bool]:
        self.heard += held
        self.listed = models
        return [each.generation_id not in self.unwanted for each in held]


class Rig:
    """`async with running(...) as rig:` is a worker that serves; its outside is `jobs`, `replies`,
    `dead` and `bucket`.
    """

    def __init__(self, engine: FaultyEngine | None = None, failpoints: str = "", **tuning: Any) -> None:
        self.jobs, self.dead, self.bucket = FakeQueue("jobs"), Sending(FakeQueue("dead")), FakeBucket()
        self.replies = Sending(FakeQueue("replies"))
        self.engine = engine or FaultyEngine()
        self.wanted = Wanted()
        self.draining = asyncio.Event()
        self.sent: dict[str, fast.ImageJob] = {}
        ids = count()
        self._gpu, self._encode = WorkerThreads("gpu"), WorkerThreads("encode")
        self.ports = Ports(
            jobs=self.jobs,
            replies=self.replies,
            quarantine=self.dead,
            temp=self.bucket,
            still_wanted=self.wanted,
            engines={MODEL: self.engine},
            gpu_thread=self._gpu,
            encode_threads=self._encode,
            failpoints=Failpoints.from_env(failpoints),
            clock=asyncio.get_running_loop().time,
            wall_ms=wall_ms,
            new_id=lambda prefix: f"{prefix}_{next(ids)}",
            rng=lambda: 0.01,
        )
        defaults = Tuning(worker_id="w", receive_wait_s=1, drain_s=5.0, wanted_every_s=0.05, hang_s=5.0)
        self._tuning = replace(defaults, **tuning)
        self.worker = Worker(self.ports, self._tuning)

    def rebuild(self, **ports: Any) -> None:
        """The worker once more, with other ports."""
        self.ports = replace(self.ports, **ports)
        self.worker = Worker(self.ports, self._tuning)

    async def send(self, *jobs: fast.ImageJob) -> None:
        self.sent.update({each.image.generation_id: each for each in jobs})
        assert all(await self.jobs.send([Outgoing(body=messages.encode(job)) for job in jobs]))

    def of(self, kind: type[T]) -> list[T]:
        return [reply for reply in self.replies.accepted if isinstance(reply, kind)]

    def rendered(self) -> list[str]:
        return [each.image.generation_id for each in self.of(fast.ImageRendered)]

    def failed(self) -> dict[str, int]:
        return {each.image.generation_id: int(each.failure) for each in self.of(fast.ImageAttemptFailed)}

    async def idle(self) -> None:
        """Returns when nothing is held and no message is left."""

        async def assert_empty() -> None:
            depth = await self.jobs.depth()
            assert not self.worker.window.held()
            assert depth.visible + depth.in_flight == 0

        await quiet(assert_empty, 20)

    def metric(self, name: str, **labels: str) -> float:
        return self.worker.metrics.registry.get_sample_value(f"darkroom_worker_{name}", labels) or 0.0

    def close(self) -> None:
        self._gpu.close()
        self._encode.close()


async def send_again(rig: Rig) -> None:
    """As core does: an image that a worker could not take for now is dispatched again. Until cancelled."""
    answered = 0
    while True:
        await asyncio.sleep(0.2)
        replies = rig.of(fast.ImageAttemptFailed)
        for reply in replies[answered:]:
            if int(reply.failure) == pb.AttemptFailure.MODEL_AWAY:
                again = fast.ImageJob()
                again.CopyFrom(rig.sent[reply.image.generation_id])
                again.dispatch += 1
                await rig.send(again)
        answered = len(replies)


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    """The worker serves inside, and drains at the end."""
    async with asyncio.TaskGroup() as group:
        group.create_task(rig.worker.run(rig.draining.wait))
        try:
            yield rig
        finally:
            rig.draining.set()
    rig.close()


async def quiet(check: Callable[[], Awaitable[None]], deadline_s: float = 10.0) -> None:
    """Until `check` passes."""

    async def passes() -> bool:
        await check()
        return True

    wait: Callable[[], bool | Awaitable[bool]] = passes
    await eventually(wait, deadline_s)


def job(number: int | str, **fields: Any) -> fast.ImageJob:
    """A valid job; `steps`, `size` and the message's own fields can be given."""
    spec = fast.GenerationSpec(
        model=fields.pop("model", MODEL),
        width=fields.pop("size", 64),
        height=64,
        num_inference_steps=fields.pop("steps", 2),
        guidance_scale=1.0,
        seed=1,
        n=4,
        output_format=pb.OutputFormat(1),
    )
    defaults: dict[str, Any] = {"dispatch": 1, "image_seed": 1}
    return fast.ImageJob(
        image=fast.ImageRef(generation_id=f"g{number}", index=fields.pop("index", 0)),
        spec=spec,
        prompts=fast.Prompts(prompt="a secret prompt"),
        **{**defaults, **fields},
    )


def some(numbers: Iterable[int], **fields: Any) -> list[fast.ImageJob]:
    return [job(number, **fields) for number in numbers]
