"""The composition root: builds the worker's ports from real queues, stores, threads and engines, and serves."""

import asyncio
import random
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import structlog

from infra import aws, models
from infra.admin import AdminServer
from infra.clock import wall_ms
from infra.failpoints import Failpoints
from infra.ids import new_id
from infra.lifecycle import Shutdown
from infra.rpc import calling, open_channel
from infra.s3 import S3Bucket
from infra.skew import Skew
from infra.sqs import Outgoing, SqsQueue
from worker.assembly import LANES, Ports, Tuning, Worker
from worker.config import WorkerSettings
from worker.core_client import CoreClient
from worker.engines.contract import Engine
from worker.engines.errors import LoadFailed
from worker.engines.factory import build
from worker.engines.model_folder import examine
from worker.gpu.models.load_marks import LoadMarkFiles
from worker.gpu.models.model_files import ModelFilesOnDisk
from worker.ports import JobQueue, Reply, ReplyQueue, StillWanted, TempStore, Threads
from worker.threads import WorkerThreads
from worker.tuning import Mode

_log = structlog.get_logger()
UNLOAD_S = 3.0
"""How long unloading the engines may take at the end."""
OWN_LIMIT_S = 60.0
"""Added to an engine's load limit before the watchdog acts: an engine in a process of its own keeps the limit itself,
and needs this long to end that process.
"""


class Replies:
    """`ports.ReplyQueue` over infra's queue."""

    def __init__(self, queue: SqsQueue) -> None:
        self._queue = queue

    async def send(self, messages: Sequence[Reply]) -> Sequence[bool]:
        """True where the queue has accepted."""
        return await self._queue.send([Outgoing(body=each.body, attributes=each.attributes) for each in messages])


async def serve(settings: WorkerSettings, shutdown: Shutdown) -> None:
    """Runs the worker until it has drained. Raises infra.lifecycle.ConfigError, or watchdog.Hung, errors.EngineLost or
    infra.loops.LoopEnded in an exception group.
    """
    async with AsyncExitStack() as stack:
        skew = Skew(settings.max_clock_skew_s)
        ports = await open_ports(settings, stack, skew)
        worker = Worker(ports, tuning(settings))
        admin = AdminServer(
            settings.worker_admin_host,
            settings.worker_admin_port,
            worker.metrics.registry,
            worker.health.reasons,
            notes=worker.health.notes,
            skew=skew,
            setting="DARKROOM_WORKER_ADMIN_PORT",
        )
        await stack.enter_async_context(admin)
        _log.info("worker.serving", worker=settings.worker_id, admin_port=admin.port, models=list(ports.engines))
        await worker.run(shutdown.wait)


async def open_ports(settings: WorkerSettings, stack: AsyncExitStack, skew: Skew | None = None) -> Ports:
    """The real ports; `stack` closes them. Raises ConfigError when no model has its folder or file. If only some lack
    theirs, only those models cannot be used.
    """
    entries = models.load(settings.models_file)
    models.require_a_source(entries)
    connections = settings.worker_uploads + 4 * LANES + 4
    clients = await stack.enter_async_context(aws.clients(max_connections=connections, skew=skew))
    gpu_thread = WorkerThreads("gpu")
    stack.callback(gpu_thread.close)
    encode_threads = WorkerThreads("encode", settings.worker_encode_threads)
    stack.callback(encode_threads.close)
    files_thread = WorkerThreads("files")
    stack.callback(files_thread.close)
    marks = stack.enter_context(LoadMarkFiles(settings.data_dir / "worker" / "loads"))
    jobs: JobQueue = SqsQueue(clients.sqs, settings.jobs_queue)
    replies: ReplyQueue = Replies(SqsQueue(clients.sqs, settings.replies_queue))
    temp: TempStore = S3Bucket(clients.s3, settings.temp_bucket)
    engines = {entry.name: _engine(entry, settings) for entry in entries}
    stack.push_async_callback(unload, engines.values(), gpu_thread)
    return Ports(
        jobs=jobs,
        replies=replies,
        quarantine=Replies(SqsQueue(clients.sqs, settings.dead_queue)),
        temp=temp,
        still_wanted=_core(settings, stack),
        engines=engines,
        gpu_thread=gpu_thread,
        encode_threads=encode_threads,
        failpoints=Failpoints.from_env(settings.failpoints),
        clock=asyncio.get_running_loop().time,
        wall_ms=wall_ms,
        new_id=new_id,
        rng=random.random,
        model_files=ModelFilesOnDisk(
            {entry.name: _sources(entry) for entry in entries},
            files_thread,
            problems={entry.name: partial(problem_of, entry) for entry in entries},
        ),
        load_marks=marks,
    )


def problem_of(entry: models.ModelEntry) -> str:
    """What is wrong with the model's files; empty for nothing. Needs no library of the model, and runs before another
    model is unloaded to make room.
    """
    problem = models.problem_of_source(entry)
    if problem or entry.in_process not in {"pipeline", "latent"} or not Path(entry.source).is_dir():
        return problem
    try:
        examine(Path(entry.source))
    except LoadFailed as error:
        return str(error)
    return ""


def _sources(entry: models.ModelEntry) -> tuple[Path, ...]:
    """The model's files and folders on this machine."""
    if entry.in_process not in {"pipeline", "latent"}:
        return ()
    return tuple(Path(each) for each in (entry.source, entry.config) if each)


def _engine(entry: models.ModelEntry, settings: WorkerSettings) -> Engine:
    return build(
        entry,
        torch_threads=settings.worker_torch_threads,
        load_s=settings.worker_engine_load_s,
    )


async def unload(engines: Iterable[Engine], gpu_thread: Threads) -> None:
    """Closes connections and ends processes, for UNLOAD_S at most: a GPU thread that hangs does not delay the exit."""

    def unload_all() -> None:
        for engine in engines:
            if engine.loaded:
                engine.unload()

    try:
        async with asyncio.timeout(UNLOAD_S):
            await gpu_thread.run(unload_all)
    except Exception as error:  # noqa: BLE001  (the worker ends anyway, and this must not hide why)
        _log.warning("worker.not_unloaded", error=type(error).__name__)


def tuning(settings: WorkerSettings) -> Tuning:
    """The worker's tuning from its settings."""
    return Tuning(
        worker_id=settings.worker_id,
        jobs_queue=settings.jobs_queue,
        replies_queue=settings.replies_queue,
        temp_bucket=settings.temp_bucket,
        visibility_s=settings.visibility_s,
        drain_s=settings.drain_s,
        window_images=settings.worker_window_images,
        receive_wait_s=settings.worker_receive_wait_s,
        suspect_receives=settings.worker_suspect_receives,
        encoders=settings.worker_encode_threads,
        uploads=settings.worker_uploads,
        line_images=settings.worker_line_images,
        upload_deadline_s=settings.worker_upload_deadline_s,
        wanted_every_s=settings.worker_wanted_every_s,
        hang_s=settings.worker_hang_s,
        load_s=settings.worker_engine_load_s + OWN_LIMIT_S,
        models_loaded=settings.worker_models_loaded,
        longest_away_s=settings.worker_engine_outage_s,
        preload=settings.worker_preload,
        mode=Mode(settings.worker_mode),
    )


def _core(settings: WorkerSettings, stack: AsyncExitStack) -> StillWanted | None:
    if not settings.core_target:
        return None
    channel = open_channel(settings.core_target, token=settings.internal_token.get_secret_value())
    stack.callback(channel.close)
    return CoreClient(channel, calling)
