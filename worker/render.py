"""Drives an engine through one batch on the GPU thread, and finds the culprit when a batch fails.

A failing batch is halved until what fails is alone: mates succeed, the culprit is reported. Out of memory halves
as well, and the smaller size is remembered. A bad picture fails only its own image.
"""

import asyncio
import contextlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import structlog
from opentelemetry.trace import Span

from worker import tracing
from worker.engines.contract import Done, EncodedPicture, Engine, Picture, Progress, RenderJob
from worker.errors import BadOutput, EngineLost, OutOfMemory
from worker.metrics import Metrics
from worker.pipeline import Line
from worker.ports import Failpoints, NewId, Threads
from worker.timing import Caps, Measured, Waits, batch_kind
from worker.types import Batch, Failed, Failure, Finished, Held, State
from worker.watchdog import Pulse

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoded:
    job_id: str
    picture: Picture | EncodedPicture | None
    bad: str
    decode_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """One stay on the GPU thread: until somebody leaves the batch."""

    took_s: float
    decoded: Sequence[_Decoded] = ()
    evicted: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crash:
    """A turn that raised. Holds no traceback: that would hold tensors."""

    took_s: float
    failure: Failure
    detail: str


@dataclass(slots=True, kw_only=True)
class _Run:
    """A batch under way."""

    batch: Batch
    active: dict[str, Held]
    spans: dict[str, Span] = field(default_factory=dict)
    gpu_s: float = 0.0


class Renderer:
    """Used by the GPU loop, one batch at a time."""

    def __init__(
        self,
        thread: Threads,
        line: Line,
        *,
        clock: Callable[[], float],
        caps: Caps,
        measured: Measured,
        waits: Waits,
        pulse: Pulse,
        worker_id: str,
        jobs_queue: str,
        new_id: NewId,
        metrics: Metrics,
        failpoints: Failpoints,
    ) -> None:
        self._thread = thread
        self._line = line
        self._clock = clock
        self._caps = caps
        self._measured = measured
        self._waits = waits
        self._pulse = pulse
        self._worker_id = worker_id
        self._jobs_queue = jobs_queue
        self._new_id = new_id
        self._metrics = metrics
        self._failpoints = failpoints

    async def render(self, batch: Batch) -> None:
        """Returns when every member has left the GPU. Raises EngineLost."""
        parts = [batch]
        while parts:
            part = parts.pop()
            for held in part.members:
                if held.unwanted:
                    await self._line.drop(held)
            members = tuple(held for held in part.members if not held.unwanted)
            if not members:
                continue
            part = replace(part, members=members)
            crash = await self._run(part)
            if crash is not None:
                parts.extend(reversed(await self._halves(part, crash)))

    async def _run(self, batch: Batch) -> _Crash | None:
        run = _Run(batch=batch, active={held.id: held for held in batch.members})
        self._admitted(run)
        batch_span = tracing.batch(batch)
        run.spans = {held.id: tracing.generate(held, batch_span) for held in batch.members}
        crash: _Crash | None = None
        newcomers: Sequence[RenderJob] = [held.job.render for held in batch.members]
        try:
            while run.active and crash is None:
                turn = await self._turn(run, newcomers)
                newcomers = ()
                if isinstance(turn, _Crash):
                    crash = turn
                else:
                    await self._deal(run, turn)
        finally:
            error = crash.detail if crash else ""
            for span in (*run.spans.values(), batch_span):
                tracing.end(span, error)
        self._waits.batch_until_s = self._clock()
        if crash is None:
            steps = max(held.job.render.num_inference_steps for held in batch.members)
            self._measured.observe(batch_kind(batch.key, steps, len(batch.members)), run.gpu_s)
        return crash

    def _admitted(self, run: _Run) -> None:
        now_s = self._clock()
        render = run.batch.members[0].job.render
        self._metrics.batches.labels(engine=run.batch.engine.facts.engine, model=render.model).inc()
        self._metrics.batch_size.observe(len(run.batch.members))
        for held in run.batch.members:
            if held.state is not State.RUNNING:
                held.state = State.RUNNING
                held.wait_s = now_s - held.received_s
                held.wait_reason = self._waits.reason(held.received_s)
                held.span = tracing.process(held, self._jobs_queue, self._worker_id)
                self._metrics.wait_seconds.observe(held.wait_s)

    async def _turn(self, run: _Run, newcomers: Sequence[RenderJob]) -> _Turn | _Crash:
        """One stay on the thread: let newcomers in, step until somebody is finished or evicted, decode."""
        loop = asyncio.get_running_loop()

        def report(progress: Progress) -> None:
            self._failpoints.reach_now("worker.gpu_mid")
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(self._progressed, run, progress)

        self._pulse.begin(run.batch.key, len(run.active), self._clock())
        turn: _Turn | _Crash | None = None
        try:
            jobs = {job_id: held.job.render for job_id, held in run.active.items()}
            turn = await self._thread.run(partial(self._on_thread, run.batch.engine, jobs, newcomers, report))
        finally:
            if isinstance(turn, _Turn):
                self._pulse.end(self._clock())
            else:
                self._pulse.fail()
        self._metrics.gpu_busy.inc(turn.took_s)
        run.gpu_s += turn.took_s
        for held in run.active.values():
            held.gpu_s += turn.took_s / len(run.active)
        return turn

    def _progressed(self, run: _Run, progress: Progress) -> None:
        self._pulse.beat(self._clock())
        for job_id, step in progress.steps.items():
            if job_id in run.active:
                run.active[job_id].step = step

    def _on_thread(
        self,
        engine: Engine,
        jobs: Mapping[str, RenderJob],
        newcomers: Sequence[RenderJob],
        report: Callable[[Progress], None],
    ) -> _Turn | _Crash:
        began = self._clock()
        try:
            if newcomers:
                engine.admit(newcomers)
            stepped = engine.step(report)
            while not (stepped.finished or stepped.evicted):  # each way back to the event loop costs the GPU time
                stepped = engine.step(report)
            decoded = [self._decode(engine, done, jobs[done.job_id]) for done in stepped.finished]
            return _Turn(took_s=self._clock() - began, decoded=decoded, evicted=stepped.evicted)
        except EngineLost:
            raise
        except OutOfMemory:
            failure, detail = Failure.OUT_OF_MEMORY, "out of memory"
        except Exception as error:  # noqa: BLE001  (a model may raise anything)
            failure, detail = Failure.MODEL_ERROR, f"the model raised {type(error).__name__}"
            _log.warning("model.raised", error=type(error).__name__, at=_places(error))
        engine.reset()  # outside the except block: its traceback would keep tensors alive
        return _Crash(took_s=self._clock() - began, failure=failure, detail=detail)

    def _decode(self, engine: Engine, done: Done, job: RenderJob) -> _Decoded:
        began = self._clock()
        picture: Picture | EncodedPicture | None = None
        bad = ""
        try:
            picture = engine.decode(done)
            _check(picture, job)
        except BadOutput as error:
            picture, bad = None, str(error)
        return _Decoded(job_id=job.id, picture=picture, bad=bad, decode_s=self._clock() - began)

    async def _deal(self, run: _Run, turn: _Turn) -> None:
        """Hand on what is finished. Waits when the line is full."""
        for job_id in turn.evicted:
            if job_id in run.active:
                await self._line.drop(run.active.pop(job_id))
        for each in turn.decoded:
            held = run.active.pop(each.job_id)
            tracing.end(run.spans[held.id], each.bad)
            await self._hand_on(run, held, each)

    async def _hand_on(self, run: _Run, held: Held, decoded: _Decoded) -> None:
        began = self._clock()
        if held.unwanted:
            await self._line.drop(held)
        elif decoded.picture is None:
            await self._line.fail(Failed(held=held, failure=Failure.BAD_OUTPUT, detail=decoded.bad))
        else:
            await self._line.picture(
                Finished(
                    held=held,
                    picture=decoded.picture,
                    facts=run.batch.engine.facts,
                    batch_id=run.batch.id,
                    batch_members=tuple(each.job.image for each in run.batch.members),
                    batch_gpu_s=run.gpu_s,
                    decode_s=decoded.decode_s,
                )
            )
        blocked = self._clock() - began
        if blocked > 0.001:
            self._waits.backpressure_until_s = self._clock()
            self._metrics.gpu_backpressure.inc(blocked)

    async def _halves(self, batch: Batch, crash: _Crash) -> list[Batch]:
        """What to run again, in order, after `batch` has failed."""
        if len(batch.members) == 1:
            await self._line.fail(Failed(held=batch.members[0], failure=crash.failure, detail=crash.detail))
            return []
        if crash.failure is Failure.OUT_OF_MEMORY:
            render = batch.members[0].job.render
            self._caps.ran_out(render.model, render.width, render.height, len(batch.members))
        reason = crash.failure.name.lower()
        self._metrics.bisected.labels(reason=reason).inc()
        left = [held for held in batch.members if held.state is State.RUNNING]
        _log.warning("batch.halved", batch=batch.id, size=len(batch.members), left=len(left), reason=crash.detail)
        middle = (len(left) + 1) // 2
        return [
            replace(batch, id=self._new_id("bat"), members=tuple(half))
            for half in (left[:middle], left[middle:])
            if half
        ]


def _places(error: BaseException) -> list[str]:
    """Where an error came from, without its text, which may hold a prompt."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return [f"{frame.filename.rsplit('/', 2)[-1]}:{frame.lineno}" for frame in frames]


def _check(picture: Picture | EncodedPicture, job: RenderJob) -> None:
    if (picture.width, picture.height) != (job.width, job.height):
        raise BadOutput("the picture is of another size than asked for")
    if isinstance(picture, Picture) and len(picture.rgb) != picture.width * picture.height * 3:
        raise BadOutput("the picture is not whole")
