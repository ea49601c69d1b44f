"""The composition root: builds core's ports from the real log, queues and buckets, and serves core over gRPC.

A stop refuses new calls, makes durable what was accepted, then cancels all loops and closes everything in reverse
order. A kill loses nothing either; draining only spares callers an error.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import structlog
from grpclib.health.service import Health
from grpclib.server import Server

from core import log_lines
from core.api.grpc_api import CoreApi
from core.api.operator_client import OperatorClient
from core.assembly import Core
from core.config import CoreSettings, tuning
from core.dispatch.dead_letters import DeadLetters, Origin
from core.domain import events
from core.erasure import erasure_list
from core.erasure.erasure_list import Erasures
from core.errors import LogBroken, LogUnusable, VersionConflict
from core.log import root_note
from core.log.erased_file import ErasedFile
from core.log.first_start import FirstStart
from core.log.sqlite_log import SqliteLog
from core.log_lines import EventLines
from core.metrics import Metrics
from core.ports import JobQueue, Outgoing, Ports
from core.runtime.public_note import BucketNotes
from infra import aws, rpc, sqs
from infra.admin import AdminServer
from infra.clock import wall_ms
from infra.failpoints import Failpoints
from infra.journal import Journal
from infra.lifecycle import ConfigError, Shutdown
from infra.loops import Loops
from infra.s3 import S3Bucket, StoredObject
from infra.skew import Skew
from schema import limits

_log = structlog.get_logger()
_TOKEN_BYTES = 24  # 192 bits
_SALT_BYTES = 16
_TEMP_KEPT_DAYS = 14  # beyond any recheck; a picture that expires before it is published is rendered again
BROKEN_ADVICE = (
    "core stops without answering what it is not certain of; started again it reads what is on disk. "
    "If it stops again: docs/runbook.md, When the log is damaged"
)


class SqsSender:
    """`ports.JobQueue` over infra's queue."""

    def __init__(self, queue: sqs.SqsQueue) -> None:
        self._queue = queue

    async def send(self, messages: Sequence[Outgoing]) -> list[bool]:
        """For each message, whether the queue accepted it."""
        return await self._queue.send([sqs.Outgoing(body=each.body, attributes=each.attributes) for each in messages])


class PublicBucket:
    """`ports.PublicStore` over infra's buckets."""

    def __init__(self, public: S3Bucket, temp: S3Bucket) -> None:
        self._public = public
        self._temp = temp

    async def copy_from_temp(self, temp_key: str, key: str, *, content_type: str) -> bool:
        """Copy within the store; False when there is no such temporary object."""
        return await self._public.copy_from(self._temp, temp_key, key, content_type=content_type)

    async def head(self, key: str) -> StoredObject | None:
        """The metadata of an object; None when it does not exist."""
        return await self._public.head(key)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete the objects that exist."""
        await self._public.delete(keys)


async def serve(settings: CoreSettings, shutdown: Shutdown, ports: Ports | None = None) -> None:
    """Run core until it has drained. Raises ConfigError, or a group with LogBroken, VersionConflict or LoopEnded."""
    token = settings.internal_token.get_secret_value()
    rpc.require_token(settings.core_host, token)
    async with AsyncExitStack() as stack:
        stack.enter_context(_fail_stop())
        starting = StartAdmin(settings, stack)
        core = await _until_stopped(_start(settings, stack, starting, ports), shutdown)
        if core is None:
            return
        async with Loops() as loops:
            core.start(loops)
            server, port = await _listen(settings, core, token)
            _log.info("core.serving", port=port, admin_port=starting.admin.port)
            try:
                await shutdown.wait()
                await core.drain(settings.drain_s)
            finally:
                server.close()
                await server.wait_closed()
            loops.stop()
        _log.info("core.stopped")


class StartAdmin:
    """The admin port, opened as soon as the start may have to wait. `reasons` returns why core is not ready; each stage
    of the start replaces it.
    """

    def __init__(self, settings: CoreSettings, stack: AsyncExitStack) -> None:
        self.metrics = Metrics()
        self.reasons: Callable[[], Sequence[str]] = lambda: ["core: starting"]
        host, port = settings.core_admin_host, settings.core_admin_port
        self.skew = Skew(settings.max_clock_skew_s)
        self.admin = AdminServer(
            host, port, self.metrics.registry, self._reasons, skew=self.skew, setting="DARKROOM_CORE_ADMIN_PORT"
        )
        self._stack = stack
        self._open = False

    async def open(self) -> None:
        """Open the admin port, once. Raises ConfigError when it is taken."""
        if not self._open:
            self._open = True
            await self._stack.enter_async_context(self.admin)

    def _reasons(self) -> Sequence[str]:
        return self.reasons()


async def _start(settings: CoreSettings, stack: AsyncExitStack, starting: StartAdmin, ports: Ports | None) -> Core:
    """Build core and load its log, before it serves. May wait for the store; raises LogUnusable or ConfigError."""
    tuned = tuning(settings)  # first: wrong settings are reported without waiting for the store
    core = Core(ports or await open_ports(settings, stack, starting), tuned, starting.metrics)
    starting.reasons = core.reasons
    await starting.open()  # loading may wait for the list of erasures
    await core.introduce()  # before load, which appends erasures: this may find that core must not use the log
    await core.load()
    return core


async def _until_stopped(start: Coroutine[Any, Any, Core], shutdown: Shutdown) -> Core | None:
    """The result of `start`; None when the first stop signal arrives before it is done."""
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(start, name="core.start")

        async def stop() -> None:
            await shutdown.draining.wait()
            starting.cancel()

        stopping = group.create_task(stop(), name="core.stop")
        try:
            return await starting
        except asyncio.CancelledError:
            # Either `stop` has cancelled the start, or this task itself is cancelled; the latter is passed on.
            if not (starting.cancelled() and shutdown.draining.is_set()):
                raise
            return None
        finally:
            stopping.cancel()


@contextmanager
def _fail_stop() -> Iterator[None]:
    """Logs in one line why core stops when its event log is broken (a traceback follows). A log that core may not open
    becomes a ConfigError.
    """
    try:
        yield
    except BaseException as error:
        for found in _leaves(error):
            if isinstance(found, LogUnusable | ConfigError):
                raise ConfigError(str(found)) from None
            if isinstance(found, LogBroken | VersionConflict):
                _log.critical("log.broken", reason=str(found), advice=BROKEN_ADVICE)
        raise


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


async def open_ports(settings: CoreSettings, stack: AsyncExitStack, starting: StartAdmin) -> Ports:
    """The real ports; `stack` closes them. Raises ConfigError when the credentials are unusable, LogUnusable when the
    log is.
    """
    failpoints = Failpoints.from_env(settings.failpoints)
    connections = settings.core_reply_consumers + settings.core_publishers + 20
    clients = await stack.enter_async_context(aws.clients(max_connections=connections, skew=starting.skew))
    jobs = sqs.SqsQueue(clients.sqs, settings.jobs_queue)
    replies = sqs.SqsQueue(clients.sqs, settings.replies_queue)
    dead = sqs.SqsQueue(clients.sqs, settings.dead_queue)
    temp = S3Bucket(clients.s3, settings.temp_bucket)
    public = S3Bucket(clients.s3, settings.public_bucket)
    notes = BucketNotes(public, settings.jobs_queue, make=settings.core_create_queues)
    log = await _open_log(settings, failpoints, notes, stack, starting)

    async def make_public() -> None:
        if settings.core_create_queues:
            await public.ensure()

    async def make() -> None:
        if settings.core_create_queues:
            await jobs.ensure(visibility_s=settings.visibility_s, dead_letter=settings.dead_queue)
            await dead.ensure(visibility_s=settings.visibility_s)
            await replies.ensure(visibility_s=settings.core_reply_visibility_s)
            await temp.ensure(expire_days=_TEMP_KEPT_DAYS)
            await make_public()

    return Ports(
        log=log,
        jobs=SqsSender(jobs),
        replies=replies,
        quarantine=SqsSender(dead),
        dead_letters=dead,
        temp=temp,
        public=PublicBucket(public, temp),
        notes=notes,
        erasures=Erasures(
            ErasedFile(settings.data_dir), public, prefix=erasure_list.prefix(settings.jobs_queue), make=make_public
        ),
        make=make,
        failpoints=failpoints,
        wall_ms=wall_ms,
        new_token=lambda: secrets.token_hex(_TOKEN_BYTES),
        new_salt=lambda: secrets.token_bytes(_SALT_BYTES),
        rng=random.random,
        durable=EventLines({name: Journal(name, *log_lines.NAMES) for name in events.TYPES.values()}),
        log_tail_bytes=lambda: log.wal_bytes,
    )


@asynccontextmanager
async def dead_letters(settings: CoreSettings) -> AsyncIterator[DeadLetters]:
    """The dead-letter queue, and the queues its messages came from. Raises ConfigError for wrong `AWS_*` variables."""
    async with aws.clients(max_connections=5) as clients:
        origins: dict[Origin, JobQueue] = {
            "jobs": SqsSender(sqs.SqsQueue(clients.sqs, settings.jobs_queue)),
            "replies": SqsSender(sqs.SqsQueue(clients.sqs, settings.replies_queue)),
        }
        yield DeadLetters(sqs.SqsQueue(clients.sqs, settings.dead_queue), origins)


@asynccontextmanager
async def operator(settings: CoreSettings) -> AsyncIterator[OperatorClient]:
    """A running core's API for operators' commands. Raises ConfigError for a wrong DARKROOM_CORE_TARGET."""
    channel = rpc.open_channel(settings.core_target, token=settings.internal_token.get_secret_value())
    try:
        yield OperatorClient(channel, rpc.calling)
    finally:
        channel.close()


async def _open_log(
    settings: CoreSettings, failpoints: Failpoints, notes: BucketNotes, stack: AsyncExitStack, starting: StartAdmin
) -> SqliteLog:
    first = FirstStart(notes, settings.log_path, rng=random.random)

    async def may_begin() -> None:
        starting.reasons = lambda: [first.trouble or "log: opening"]
        await starting.open()
        await first.permit()

    log = SqliteLog(
        settings.log_path,
        root_note=settings.data_dir / root_note.NAME,
        may_begin=may_begin,
        reach=failpoints.reach_now,
        wal_limit_bytes=settings.core_wal_limit_bytes,
    )
    return await stack.enter_async_context(log)


async def _listen(settings: CoreSettings, core: Core, token: str) -> tuple[Server, int]:
    server = rpc.BoundedServer([CoreApi(core.service), Health()], connections=settings.core_max_connections)
    rpc.guard(server, token=token, max_bytes=limits.MAX_RPC_BYTES)
    try:
        port = await server.listen(settings.core_host, settings.core_port)
    except OSError as error:
        where = f"{settings.core_host}:{settings.core_port}"
        raise ConfigError(f"cannot listen on {where} ({error.strerror}): set DARKROOM_CORE_PORT") from None
    return server, port
