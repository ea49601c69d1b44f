"""All parts of the worker, joined: what `app` serves and a simulation drives. Knows ports and tuning, no adapter.

Built in the order in which work flows back: what answers first, then what renders, then what stops the rest.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Final, TypeVar

from infra.loops import Loops
from worker.batching.batch_limits import BatchLimits
from worker.batching.measurements import Measurements
from worker.batching.step_times import StepTimes
from worker.context import Context
from worker.engines.errors import EngineLost
from worker.gpu.announcer import Announcer
from worker.gpu.gpu_state import GpuState
from worker.gpu.lookahead import Lookahead
from worker.gpu.loop import BatchedLoop, GpuLoop, GpuParts, OverlappedLoop, PlainLoop
from worker.gpu.model_pool import ModelPool
from worker.gpu.render_record import RenderRecord, Waits
from worker.gpu.renderer import Renderer
from worker.gpu.still_wanted import StillWantedCheck
from worker.gpu.watchdog import Pulse, Watchdog
from worker.health import Health
from worker.holding.heartbeat import Heartbeat
from worker.holding.leases import Leases
from worker.holding.types import Failure, Held, State
from worker.holding.window import Window
from worker.intake.job_intake import JobIntake
from worker.intake.prefetch import Prefetch
from worker.intake.receiver import Polling, Receiver
from worker.metrics import Metrics
from worker.output.call_batching import CallBatcher
from worker.output.delivery import Delivery
from worker.output.settling import Settler
from worker.output.stages import DeliveryLimits
from worker.output.uploader import Uploader
from worker.ports import Ports
from worker.shutdown import ShutdownSequence
from worker.time_ledger import TimeLedger
from worker.tuning import Mode, Tuning

__all__ = ["LANES", "Ports", "Tuning", "Worker"]
T = TypeVar("T")
LANES = 2
"""Concurrent calls of each kind, reply and deletion: one is under way while the next gathers."""
_LOOPS: Final[Mapping[Mode, type[GpuLoop]]] = {
    Mode.PLAIN: PlainLoop,
    Mode.BATCHED: BatchedLoop,
    Mode.OVERLAPPED: OverlappedLoop,
}


def _context(ports: Ports, tuning: Tuning) -> Context:
    began_s = ports.clock()
    ledger, metrics = TimeLedger(began_s), Metrics()
    ledger.idle_began(began_s)
    metrics.watch_ledger(ledger, ports.clock)
    health = Health(jobs="jobs queue: not reached yet")
    if tuning.preload:
        health.mark_unready("model", f"loading {next(iter(ports.engines), 'the default model')}")
    return Context(
        worker_id=tuning.worker_id,
        mode=tuning.mode,
        metrics=metrics,
        health=health,
        ledger=ledger,
        failpoints=ports.failpoints,
        clock=ports.clock,
        wall_ms=ports.wall_ms,
        new_id=ports.new_id,
        rng=ports.rng,
        recorder=ports.recorder,
    )


class _Shared:
    """State that several parts work on."""

    def __init__(self, tuning: Tuning) -> None:
        self.floor = GpuState()
        self.curves = StepTimes()
        self.window = Window()
        self.measured = Measurements()
        self.pulse = Pulse(self.measured, floor_s=tuning.hang_s, reset_s=tuning.reset_s, load_s=tuning.load_s)
        self.waits = Waits()
        self.caps = BatchLimits()


class Worker:
    """Built without I/O; `run` serves until it is asked to drain."""

    def __init__(self, ports: Ports, tuning: Tuning) -> None:
        self._context = context = _context(ports, tuning)
        shared = _Shared(tuning)
        self._ports, self._tuning, self._shared = ports, tuning, shared
        self.metrics, self.health, self.window = context.metrics, context.health, shared.window
        self._limits = DeliveryLimits(
            encoders=tuning.encoders, uploads=tuning.uploads, queued=tuning.line_images, undeleted=tuning.undeleted
        )
        self._outbox = self._call_batcher("replies", ports.replies.send)
        self._deletions = self._call_batcher("delete", ports.jobs.delete)
        self._leases = Leases(context, ports.jobs)
        self._settler = self._build_settler()
        self._delivery = self._build_delivery()
        self._models = self._build_models()
        self._receiver = self._build_receiver()
        self._inquiry = StillWantedCheck(
            shared.window,
            self._delivery,
            ports.still_wanted,
            worker_id=tuning.worker_id,
            models=self._models.listed,
            every_s=tuning.wanted_every_s,
            evict=self._evict,
            metrics=self._context.metrics,
        )
        self._watchdog = Watchdog(shared.pulse, tick_s=min(1.0, tuning.hang_s / 5), leave=self._hung)
        self._renderer = self._build_renderer()
        self._gpu = self._build_gpu()
        self._shutdown = ShutdownSequence(
            context, shared.window, self._leases, self._receiver, self._delivery, self._gpu
        )
        self._heartbeat = Heartbeat(context, shared.window, ports.jobs, visibility_s=tuning.visibility_s)
        self._watch_depths()

    async def run(self, draining: Callable[[], Awaitable[object]]) -> None:
        """Serves until `draining()` returns, then until all that is held is settled or given back. Raises Hung,
        EngineLost or LoopEnded, in a group.
        """
        async with Loops() as loops:
            gpu = loops.run("worker.gpu", self._gpu_loop, may_return=self._is_stopping)
            receiver = loops.run("worker.receive", self._receiver.run, may_return=self._is_stopping)
            for name, loop in self._endless():
                loops.run(f"worker.{name}", loop)
            await draining()
            await self._shutdown.drain(self._tuning.drain_s)
            await asyncio.wait({gpu, receiver}, timeout=self._tuning.receive_wait_s + 1)
            loops.stop()

    def _endless(self) -> list[tuple[str, Callable[[], Coroutine[None, None, None]]]]:
        loops = [
            ("heartbeat", self._heartbeat.run),
            ("wanted", self._inquiry.run),
            ("watchdog", self._watchdog.run),
            ("models", self._models.watch),
        ]
        for number in range(LANES):
            loops += [(f"replies.{number}", self._outbox.run), (f"delete.{number}", self._deletions.run)]
        for stage in self._delivery.stages:
            loops += [(f"{stage.name}.{number}", stage.run) for number in range(stage.workers)]
        return loops

    def _is_stopping(self) -> bool:
        return self._shutdown.begun

    async def _gpu_loop(self) -> None:
        if self._tuning.preload:
            await self._models.preload()
            self.window.touch()  # wakes the receiver, which prefetches nothing before the default model was tried
        try:
            await self._gpu.run()
        except* EngineLost:
            await self._shutdown.broken(Failure.MODEL_ERROR, "the device failed beyond repair")
            raise

    async def _hung(self, detail: str) -> bool:
        """An engine in a process of its own is ended, to be started again: True. With any other the worker stops, for
        its process must end: False.
        """
        session = self._shared.floor.session
        if session is not None and session.engine.capabilities.restartable:
            self._renderer.hung()
            session.engine.kill()
            return True
        await self._shutdown.broken(Failure.HUNG, detail)
        return False

    def _evict(self, held: Held) -> None:
        self._models.engine(held.job.render.model).evict(held.id)

    def _call_batcher(self, name: str, flush: Callable[[Sequence[T]], Awaitable[Sequence[bool]]]) -> CallBatcher[T]:
        return CallBatcher(self._context, name, flush)

    def _build_settler(self) -> Settler:
        return Settler(
            self._context,
            self._shared.window,
            self._outbox,
            self._deletions,
            self._leases,
            queue=self._tuning.replies_queue,
        )

    def _build_delivery(self) -> Delivery:
        ports, tuning, shared = self._ports, self._tuning, self._shared
        uploader = Uploader(self._context, ports.temp, bucket=tuning.temp_bucket, deadline_s=tuning.upload_deadline_s)
        return Delivery(
            self._context,
            shared.window,
            ports.encode_threads,
            uploader,
            self._settler,
            limits=self._limits,
        )

    def _build_models(self) -> ModelPool:
        return ModelPool(
            self._ports.engines,
            self._ports.gpu_thread,
            keep_loaded=self._tuning.models_loaded,
            longest_away_s=self._tuning.longest_away_s,
            files=self._ports.model_files,
            marks=self._ports.load_marks,
            caps=self._shared.caps,
            waits=self._shared.waits,
            ledger=self._context.ledger,
            pulse=self._shared.pulse,
            clock=self._ports.clock,
            rng=self._ports.rng,
            wake=self._shared.window.touch,
            metrics=self._context.metrics,
            health=self._context.health,
        )

    def _build_receiver(self) -> Receiver:
        context, tuning, shared = self._context, self._tuning, self._shared
        prefetch = Prefetch(
            context,
            shared.window,
            self._models,
            shared.curves,
            shared.measured,
            limit=tuning.window_images,
            behind=self._limits.behind,
        )
        intake = JobIntake(
            context,
            shared.window,
            self._models,
            self._delivery,
            self._ports.quarantine,
            suspect_receives=tuning.suspect_receives,
        )
        polling = Polling(wait_s=tuning.receive_wait_s, visibility_s=tuning.visibility_s)
        return Receiver(context, shared.window, self._ports.jobs, self._leases, prefetch, intake, polling)

    def _build_renderer(self) -> Renderer:
        ports, tuning, shared = self._ports, self._tuning, self._shared
        return Renderer(
            ports.gpu_thread,
            shared.window,
            self._delivery,
            limit=self._models.limit,
            clock=ports.clock,
            caps=shared.caps,
            curves=shared.curves,
            waits=shared.waits,
            pulse=shared.pulse,
            ledger=self._context.ledger,
            on_gpu=RenderRecord(
                worker_id=tuning.worker_id,
                jobs_queue=tuning.jobs_queue,
                engine=self._models.engine,
                metrics=self._context.metrics,
            ),
            proven=self._models.proven,
            new_id=ports.new_id,
            metrics=self._context.metrics,
            failpoints=ports.failpoints,
            recorder=ports.recorder,
        )

    def _build_gpu(self) -> GpuLoop:
        shared, models = self._shared, self._models
        announcer = Announcer(
            self._context, shared.window, models, self._inquiry, self._settler, self._delivery, shared.measured
        )
        parts = GpuParts(
            window=shared.window,
            delivery=self._delivery,
            state=shared.floor,
            announcer=announcer,
            renderer=self._renderer,
            models=models,
            lookahead=Lookahead(shared.window, models, shared.floor, shared.curves, shared.measured),
        )
        return _LOOPS[self._tuning.mode](parts)

    def _watch_depths(self) -> None:
        window = self._shared.window
        self.metrics.watch_depth("waiting", window.waiting_count)
        self.metrics.watch_depth("held", lambda: len(window.held()))
        self.metrics.watch_depth("running", lambda: sum(held.state is State.RUNNING for held in window.held()))
        self.metrics.watch_depth("replies", self._outbox.depth)
        self.metrics.watch_depth("delete", self._deletions.depth)
        for stage in self._delivery.stages:
            self.metrics.watch_depth(stage.name, stage.depth)
