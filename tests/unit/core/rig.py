"""The whole of core on fakes: a log, queues and buckets in memory, and a worker of a few lines."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count

from core.assembly import Core
from core.context import Context
from core.metrics import Metrics
from core.ports import Outgoing, Ports, Rng
from core.runtime.public_note import BucketNotes
from core.tuning import Tuning
from infra import sqs
from infra.loops import Loops
from infra.s3 import StoredObject
from schema import fast, messages, pb
from tests.fake_log import FakeLog
from tests.fakes import FakeBucket, FakeErasures, FakeQueue

VISIBILITY_S = 5
TUNING = Tuning(jobs_queue="jobs", replies_queue="replies", visibility_s=VISIBILITY_S)


def context(*, rng: Rng, now_ms: Callable[[], int] = int, wall_ms: Callable[[], int] = int) -> Context:
    """For a part that is tested alone; the clocks stand at 0 unless a test gives others."""
    return Context(metrics=Metrics(), failpoints=Reached(), now_ms=now_ms, wall_ms=wall_ms, rng=rng)


class Sender:
    def __init__(self, queue: FakeQueue) -> None:
        self.queue = queue

    async def send(self, messages: Sequence[Outgoing]) -> list[bool]:
        return await self.queue.send([sqs.Outgoing(body=each.body, attributes=each.attributes) for each in messages])


class PublicFake:
    def __init__(self, public: FakeBucket, temp: FakeBucket) -> None:
        self.public, self.temp = public, temp

    async def copy_from_temp(self, temp_key: str, key: str, *, content_type: str) -> bool:
        return await self.public.copy_from(self.temp, temp_key, key, content_type=content_type)

    async def head(self, key: str) -> StoredObject | None:
        return await self.public.head(key)

    async def delete(self, keys: Sequence[str]) -> None:
        await self.public.delete(keys)


@dataclass
class Reached:
    """Failpoints that note each arrival, and stop at `stop_at` until `go_on` is set."""

    names: list[str] = field(default_factory=list)
    stop_at: str = ""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def reach(self, name: str) -> None:
        self.names.append(name)
        if name == self.stop_at:
            await self.go_on.wait()


@dataclass
class World:
    log: FakeLog = field(default_factory=FakeLog)
    jobs: FakeQueue = field(default_factory=lambda: FakeQueue("jobs"))
    replies: FakeQueue = field(default_factory=lambda: FakeQueue("replies"))
    dead: FakeQueue = field(default_factory=lambda: FakeQueue("dead"))
    temp: FakeBucket = field(default_factory=lambda: FakeBucket(name="temp"))
    public: FakeBucket = field(default_factory=lambda: FakeBucket(name="public"))
    noted: FakeBucket = field(default_factory=lambda: FakeBucket(name="noted"))
    erasures: FakeErasures = field(default_factory=FakeErasures)
    failpoints: Reached = field(default_factory=Reached)
    tuning: Tuning = TUNING
    made: int = 0
    _numbers: "count[int]" = field(default_factory=count)

    def ports(self) -> Ports:
        async def make() -> None:
            await self.jobs.ensure(visibility_s=VISIBILITY_S)
            await self.replies.ensure(visibility_s=VISIBILITY_S)
            await self.temp.ensure()
            self.made += 1

        return Ports(
            log=self.log,
            jobs=Sender(self.jobs),
            replies=self.replies,
            quarantine=Sender(self.dead),
            dead_letters=self.dead,
            temp=self.temp,
            public=PublicFake(self.public, self.temp),
            notes=BucketNotes(self.noted, "jobs", make=True),
            erasures=self.erasures,
            make=make,
            failpoints=self.failpoints,
            wall_ms=lambda: 1_700_000_000_000 + int(asyncio.get_running_loop().time() * 1000),
            new_token=lambda: f"token{next(self._numbers)}",
            new_salt=lambda: next(self._numbers).to_bytes(16, "big"),
            rng=lambda: 0.5,
        )

    @asynccontextmanager
    async def core(self, **tuning: object) -> AsyncIterator[Core]:
        """Core running; at exit it is killed, not drained. The world outlives it."""
        core = Core(self.ports(), replace(self.tuning, **tuning))  # type: ignore[arg-type]
        await core.load()
        async with Loops() as loops:
            core.start(loops)
            yield core
            loops.stop()

    def types(self, generation_id: str) -> list[str]:
        """The names of the generation's events, in order."""
        from core.domain.events import TYPES

        return [TYPES[type(each.event)] for each, _ in self.log.events if each.generation_id == generation_id]


def item(
    generation_id: str, *, tenant: str = "ann", n: int = 1, key: str = "", body: bytes = b"", **fields: object
) -> fast.SubmitItem:
    spec = fast.GenerationSpec(
        model=str(fields.pop("model", "demo")),
        width=256,
        height=256,
        num_inference_steps=8,
        guidance_scale=3.5,
        seed=7,
        n=n,
        output_format=pb.OutputFormat(pb.OutputFormat.PNG),
    )
    return fast.SubmitItem(
        generation_id=generation_id,
        tenant=tenant,
        idempotency_key=key,
        body_sha256=hashlib.sha256(body).digest(),
        spec=spec,
        prompts=fast.Prompts(prompt="a red circle", negative_prompt="blue"),
        **fields,  # type: ignore[arg-type]
    )


UNSTARTED = {int(pb.AttemptFailure.MODEL_BROKEN), int(pb.AttemptFailure.MODEL_AWAY)}


@dataclass
class Worker:
    """Takes jobs and answers as a real one does; `mute` drops every reply, `broken` never renders."""

    world: World
    worker_id: str = "w1"
    upload: bool = True
    render_s: float = 0.05
    seen: list[fast.ImageJob] = field(default_factory=list)
    fail_with: int = 0
    start_only: bool = False
    lists: "dict[str, int]" = field(default_factory=dict)

    async def tell(self, core: Core) -> None:
        """What it lists, every second: states by the models' names."""
        while True:
            reports = [fast.ModelReport(name=name, state=pb.ModelState(state)) for name, state in self.lists.items()]
            core.service.still_wanted(self.worker_id, [], reports)
            await asyncio.sleep(1)

    async def run(self) -> None:
        while True:
            for received in await self.world.jobs.receive(limit=10, wait_s=20, visibility_s=VISIBILITY_S):
                job = messages.decode(received.body)
                assert isinstance(job, fast.ImageJob)
                self.seen.append(job)
                await self.answer(job)
                if not self.start_only:
                    await self.world.jobs.delete([received.receipt])
            if self.fail_with in UNSTARTED or self.fail_with == int(pb.AttemptFailure.UNSUPPORTED):
                await asyncio.sleep(1)  # so that those who can get a chance

    async def answer(self, job: fast.ImageJob) -> None:
        attempt = f"att_{self.worker_id}_{len(self.seen)}"
        if self.fail_with not in UNSTARTED:
            await self.say(started(job, attempt, self.worker_id))
        if self.start_only:
            return
        await asyncio.sleep(self.render_s)
        if self.fail_with:
            await self.say(failed(job, attempt, self.worker_id, self.fail_with))
            return
        data = f"{job.image.generation_id} {job.image.index}".encode()
        reply = rendered(job, attempt, data, self.worker_id, gpu_s=self.render_s)
        if self.upload:
            await self.world.temp.put(reply.temp_key, data, content_type="image/png", sha256=reply.sha256)
        await self.say(reply)

    async def say(self, message: messages.QueueMessage) -> None:
        await self.world.replies.send([sqs.Outgoing(body=messages.encode(message))])


def started(job: fast.ImageJob, attempt: str, worker_id: str = "w1") -> fast.ImageStarted:
    return fast.ImageStarted(
        image=job.image,
        attempt_id=attempt,
        dispatch=job.dispatch,
        worker_id=worker_id,
        solo=job.solo,
        batch_id="bat_1",
        batch_size=1,
    )


def rendered(
    job: fast.ImageJob, attempt: str, data: bytes, worker_id: str = "w1", *, gpu_s: float = 0.05
) -> fast.ImageRendered:
    return fast.ImageRendered(
        image=job.image,
        attempt_id=attempt,
        dispatch=job.dispatch,
        worker_id=worker_id,
        temp_key=f"temp/{job.image.generation_id}/{job.image.index}/{attempt}",
        sha256=hashlib.sha256(data).digest(),
        size_bytes=len(data),
        width=job.spec.width,
        height=job.spec.height,
        format=job.spec.output_format,
        timings=fast.AttemptTimings(gpu_ms=gpu_s * 1000),
        facts=fast.RenderFacts(batch_id="bat_1"),
    )


def failed(job: fast.ImageJob, attempt: str, worker_id: str, failure: int) -> fast.ImageAttemptFailed:
    return fast.ImageAttemptFailed(
        image=job.image,
        attempt_id=attempt,
        dispatch=job.dispatch,
        worker_id=worker_id,
        failure=pb.AttemptFailure(failure),
        solo=job.solo,
        detail="said the test",
    )


@asynccontextmanager
async def working(*workers: Worker, core: Core | None = None) -> AsyncIterator[None]:
    """With `core` they tell it what they list."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.run(), name=each.worker_id) for each in workers]
        if core is not None:
            tasks += [group.create_task(each.tell(core), name=f"{each.worker_id}.tell") for each in workers]
        yield
        for task in tasks:
            task.cancel()
