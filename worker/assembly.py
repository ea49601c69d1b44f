"""Joins all parts of the worker, which `app` serves and a simulation drives. Knows ports and tuning, no adapter.

Parts are built before those that use them: the ones that answer first, then those that render, then the shutdown.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Final, TypeVar

from infra.loops import Loops
from worker.batching.learned import Learned
from worker.context import Context
from worker.engines.errors import EngineLost
from worker.gpu.announcer import Announcer
from worker.gpu.gpu_state import GpuState
from worker.gpu.gpu_thread import GpuThread
from worker.gpu.lookahead import Lookahead
from worker.gpu.loop import BatchedLoop, GpuLoop, GpuParts, OverlappedLoop, PlainLoop
from worker.gpu.models.model_pool import ModelPool, ModelSources, PoolLimits
from worker.gpu.render_record import RenderRecord
from worker.gpu.renderer import Renderer
from worker.gpu.still_wanted import StillWantedCheck
from worker.gpu.watchdog import Pulse, Watchdog
from worker.health import Health
from worker.holding.heartbeat import Heartbeat
from worker.holding.leases import Leases
from worker.holding.types import Failure, State
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
"""Concurrent calls of each kind, reply and deletion: one is in flight while the next gathers items."""
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


class Worker:
    """Built without I/O; `run` serves until it is asked to drain."""

    def __init__(self, ports: Ports, tuning: Tuning) -> None:
        self._context = context = _context(ports, tuning)
        self._ports, self._tuning = ports, tuning
        self.metrics, self.health, self.window = context.metrics, context.health, Window()
        self._state, self._learned = GpuState(), Learned()
        self._loop = _LOOPS[tuning.mode]
        pulse = Pulse(self._learned.measurements, floor_s=tuning.hang_s, reset_s=tuning.reset_s, load_s=tuning.load_s)
        self._gpu_thread = GpuThread(threads=ports.gpu_thread, pulse=pulse)
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
        self._still_wanted = StillWantedCheck(
            context, self.window, self._delivery, self._models, ports.still_wanted, every_s=tuning.wanted_every_s
        )
        self._watchdog = Watchdog(pulse, tick_s=min(1.0, tuning.hang_s / 5), leave=self._hung)
        self._renderer = self._build_renderer()
        self._gpu = self._build_gpu_loop()
        self._shutdown = ShutdownSequence(context, self.window, self._leases, self._receiver, self._delivery, self._gpu)
        self._heartbeat = Heartbeat(context, self.window, ports.jobs, visibility_s=tuning.visibility_s)
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
            ("wanted", self._still_wanted.run),
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
        """The watchdog's `leave`. A session's engine that has a process of its own is killed, to be started again:
        True. Any other hang, also one in a load, cannot be ended from here: the images are reported or given back, and
        False makes the worker's process end.
        """
        session = self._state.session
        if session is not None and session.engine.capabilities.restartable:
            self._renderer.hung()
            session.engine.kill()
            return True
        await self._shutdown.broken(Failure.HUNG, detail)
        return False

    def _call_batcher(self, name: str, flush: Callable[[Sequence[T]], Awaitable[Sequence[bool]]]) -> CallBatcher[T]:
        return CallBatcher(self._context, name, flush)

    def _build_settler(self) -> Settler:
        return Settler(
            self._context,
            self.window,
            self._outbox,
            self._deletions,
            self._leases,
            queue=self._tuning.replies_queue,
        )

    def _build_delivery(self) -> Delivery:
        ports, tuning = self._ports, self._tuning
        uploader = Uploader(self._context, ports.temp, bucket=tuning.temp_bucket, deadline_s=tuning.upload_deadline_s)
        return Delivery(
            self._context,
            self.window,
            ports.encode_threads,
            uploader,
            self._settler,
            limits=self._limits,
        )

    def _build_models(self) -> ModelPool:
        ports, tuning = self._ports, self._tuning
        return ModelPool(
            self._context,
            self._gpu_thread,
            self.window,
            self._learned.batch_limits,
            ModelSources(engines=ports.engines, files=ports.model_files, marks=ports.load_marks),
            PoolLimits(loaded=tuning.models_loaded, longest_away_s=tuning.longest_away_s),
        )

    def _build_receiver(self) -> Receiver:
        context, tuning = self._context, self._tuning
        prefetch = Prefetch(
            self.window,
            self._models,
            self._learned,
            limit=tuning.window_images,
            behind=self._limits.behind,
            at_once=self._loop.receives_at_once,
        )
        intake = JobIntake(
            context,
            self.window,
            self._models,
            self._delivery,
            self._ports.quarantine,
            suspect_receives=tuning.suspect_receives,
        )
        polling = Polling(wait_s=tuning.receive_wait_s, visibility_s=tuning.visibility_s)
        return Receiver(context, self.window, self._ports.jobs, self._leases, prefetch, intake, polling)

    def _build_renderer(self) -> Renderer:
        record = RenderRecord(self._context, self.window, jobs_queue=self._tuning.jobs_queue)
        return Renderer(
            self._context, self._gpu_thread, self.window, self._delivery, self._models, self._learned, record
        )

    def _build_gpu_loop(self) -> GpuLoop:
        announcer = Announcer(
            self._context,
            self.window,
            self._models,
            self._still_wanted,
            self._settler,
            self._delivery,
            self._learned,
        )
        parts = GpuParts(
            window=self.window,
            delivery=self._delivery,
            state=self._state,
            announcer=announcer,
            renderer=self._renderer,
            models=self._models,
            lookahead=Lookahead(self.window, self._models, self._state, self._learned),
        )
        return self._loop(parts)

    def _watch_depths(self) -> None:
        window = self.window
        self.metrics.watch_depth("waiting", window.waiting_count)
        self.metrics.watch_depth("held", lambda: len(window.held()))
        self.metrics.watch_depth("running", lambda: sum(held.state is State.RUNNING for held in window.held()))
        self.metrics.watch_depth("replies", self._outbox.depth)
        self.metrics.watch_depth("delete", self._deletions.depth)
        for stage in self._delivery.stages:
            self.metrics.watch_depth(stage.name, stage.depth)
