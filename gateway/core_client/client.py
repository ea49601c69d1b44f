"""Core's gRPC API as the port `Core`: coalesced submissions, deadlines, retries, and errors of `gateway.errors`.

The only module of the gateway that imports grpclib. `app.py` passes in the channels and `calling` (spans, deadlines,
errors) of `infra.rpc`. Messages are those of `schema/fast.py`.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import structlog
from google.protobuf.message import DecodeError
from grpclib import GRPCError, Status
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import ProtocolError, StreamTerminatedError
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from opentelemetry import trace
from opentelemetry.trace import Span

from gateway import tracing
from gateway.core_client.coalescer import Coalescer
from gateway.core_client.lanes import Lanes
from gateway.errors import Broken, InvalidFields, NotFound, Unavailable
from gateway.ports import CancelOutcome, EraseOutcome, Failpoints, Page
from infra.fairness import FairSemaphore, Full
from infra.retry import Permanent, Retryable, retry
from schema import fast, limits

_log = structlog.get_logger()
SENDERS = 2
"""Submit calls in flight at once: one on the wire while core commits the other."""
_SUBMIT_ATTEMPTS = 3
_SERVICE = "darkroom.v1.Core"
_WAIT_MARGIN_S = 5.0
_CALLS_AT_ONCE = 90
_WAITS_PER_CHANNEL = 90
"""Both below the 100 streams that core's side allows at once on one connection."""
_CROWDED_S = 1.0
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Connections to core by what they carry, so that waiting calls do not block others."""

    submissions: Channel
    calls: Channel
    waits: Sequence[Channel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits of calls to core: times in seconds, and how many may wait.

    `submit_s` is from the arrival of a submission to its answer, all retries included; `probe_s` is between two health
    checks. `max_waiting` bounds the waiting submissions, and the waiting other calls separately.
    """

    submit_s: float
    call_s: float
    max_waiting: int
    probe_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc:
    """The context managers around each call, which turn errors of grpclib into those of `infra.retry`: `infra.rpc`."""

    calling: Callable[..., AbstractAsyncContextManager[Span]]
    contain_errors: Callable[[], AbstractContextManager[None]]


class CoreClient:
    """Fits `gateway.ports.Core`. `run` and `watch` are its tasks; submissions wait until `run` runs."""

    def __init__(
        self,
        channels: Channels,
        rpc: Rpc,
        *,
        bounds: Bounds,
        failpoints: Failpoints,
        rng: Callable[[], float],
        on_batch: Callable[[int], None],
        default_spec: fast.GenerationSpec,
    ) -> None:
        self._rpc = rpc
        self._bounds = bounds
        self._failpoints = failpoints
        self._rng = rng
        self._on_batch = on_batch
        self._default_spec = default_spec
        self._health = HealthStub(channels.submissions)
        self._submit = _method(channels.submissions, "Submit", fast.SubmitRequest, fast.SubmitReply)
        self._get = _method(channels.calls, "Get", fast.GetRequest, fast.GetReply)
        self._list = _method(channels.calls, "List", fast.ListRequest, fast.ListReply)
        self._cancel = _method(channels.calls, "Cancel", fast.CancelRequest, fast.CancelReply)
        self._models = _method(channels.calls, "Models", fast.ModelsRequest, fast.ModelsReply)
        self._erase = _method(channels.calls, "Erase", fast.EraseRequest, fast.EraseReply)
        self._semaphore = FairSemaphore(_CALLS_AT_ONCE, waiting=bounds.max_waiting)
        waits = [_method(channel, "Get", fast.GetRequest, fast.GetReply) for channel in channels.waits]
        self._waits = Lanes(waits, per_lane=_WAITS_PER_CHANNEL)
        self._submissions: Coalescer[tuple[fast.SubmitItem, Span], fast.SubmitResult] = Coalescer(
            self._send, max_items=limits.MAX_SUBMIT_ITEMS, max_waiting=bounds.max_waiting, timeout_s=bounds.submit_s
        )
        self.problem = "core has not answered yet"

    async def run(self) -> NoReturn:
        """Sends submissions; run it `SENDERS` times."""
        await self._submissions.run()

    @property
    def waiting(self) -> int:
        """Submissions that no call has taken yet."""
        return self._submissions.waiting

    async def watch(self) -> NoReturn:
        """Keeps `problem` current by probing core's API every `probe_s` seconds."""
        while True:
            before, self.problem = self.problem, await self._probe()
            if self.problem and self.problem != before:
                _log.warning("core.lost", reason=self.problem)
            elif self.problem != before:
                _log.info("core.found")
            await asyncio.sleep(self._bounds.probe_s)

    async def submit(self, item: fast.SubmitItem) -> fast.SubmitResult:
        """See the port."""
        return await self._submissions.put((item, trace.get_current_span()), item.tenant)

    async def get(self, tenant: str, generation_id: str, *, wait_s: float = 0.0) -> fast.GenerationView:
        """See the port."""
        reply: fast.GetReply | None
        if wait_s:
            request = fast.GetRequest(tenant=tenant, generation_id=generation_id, wait_ms=int(wait_s * 1000))
            reply = await self._waits.call(tenant, lambda get: self._call("Get", get, request, wait_s + _WAIT_MARGIN_S))
            if reply is not None:
                return reply.generation
            await asyncio.sleep(min(wait_s, _CROWDED_S))  # no stream is free for a wait: poll instead
        request = fast.GetRequest(tenant=tenant, generation_id=generation_id)
        reply = await self._in_turn(tenant, "Get", self._get, request)
        return reply.generation

    async def page(self, tenant: str, *, size: int, cursor: str, status: int) -> Page:
        """See the port."""
        request = fast.ListRequest(tenant=tenant, page_size=size, cursor=cursor, status=status)
        reply: fast.ListReply = await self._in_turn(tenant, "List", self._list, request)
        return Page(generations=reply.generations, next_cursor=reply.next_cursor)

    async def cancel(self, tenant: str, generation_id: str) -> CancelOutcome:
        """See the port."""
        request = fast.CancelRequest(tenant=tenant, generation_id=generation_id)
        reply: fast.CancelReply = await self._in_turn(tenant, "Cancel", self._cancel, request)
        return CancelOutcome(cancelled=reply.cancelled, generation=reply.generation)

    async def models(self) -> fast.ModelsReply:
        """See the port."""
        reply: fast.ModelsReply = await self._call("Models", self._models, fast.ModelsRequest(), self._bounds.call_s)
        return reply

    async def erase(self, tenant: str, generation_id: str) -> EraseOutcome:
        """See the port."""
        request = fast.EraseRequest(tenant=tenant, generation_id=generation_id)
        reply: fast.EraseReply = await self._in_turn(tenant, "Erase", self._erase, request)
        return EraseOutcome(erased=reply.erased, generation=reply.generation)

    async def _send(
        self, entries: Sequence[tuple[fast.SubmitItem, Span]], deadline: float
    ) -> Sequence[fast.SubmitResult]:
        """One Submit call, retried twice at most: core recognises a repeated item by its generation id."""
        await self._failpoints.reach("gateway.before_submit")
        self._on_batch(len(entries))
        request = fast.SubmitRequest(items=[item for item, _ in entries], default_spec=self._default_spec)
        loop = asyncio.get_running_loop()

        async def attempt() -> fast.SubmitReply:
            left_s = max(deadline - loop.time(), 0.05)
            async with self._rpc.calling(f"{_SERVICE}/Submit", deadline_s=left_s):
                reply: fast.SubmitReply = await self._submit(request)
                return reply

        recorded = [span for _, span in entries if span.is_recording()]
        with tracing.batch("submit batch", recorded) if recorded else nullcontext():
            try:
                async with asyncio.timeout_at(deadline + 0.1):  # after the last call's deadline; ends pauses as well
                    reply = await retry(attempt, attempts=_SUBMIT_ATTEMPTS, first_s=0.05, cap_s=1.0, rng=self._rng)
            except (Retryable, TimeoutError):
                raise Unavailable from None
            except (Permanent, DecodeError) as error:
                raise Broken(str(error)) from error
        await self._failpoints.reach("gateway.after_submit")
        return reply.results

    async def _in_turn(self, tenant: str, name: str, method: Callable[[Any], Any], request: Any) -> Any:
        """A call that core answers at once; tenants take turns for the connection's streams.

        grpclib would queue further calls in order of arrival, so one tenant's calls could delay all others.
        """
        try:
            async with asyncio.timeout(self._bounds.call_s), self._semaphore.holding(tenant):
                return await self._call(name, method, request, self._bounds.call_s)
        except Full:
            raise Unavailable("Too many requests are being handled.", retry_after_s=1) from None
        except TimeoutError:
            raise Unavailable from None

    async def _call(self, name: str, method: Callable[[Any], Any], request: Any, deadline_s: float) -> Any:
        try:
            async with self._rpc.calling(f"{_SERVICE}/{name}", deadline_s=deadline_s):
                return await method(request)
        except Retryable:
            raise Unavailable from None
        except DecodeError as error:
            raise Broken(f"{name}: {error}") from error
        except Permanent as error:
            raise _translated(name, error) from error

    async def _probe(self) -> str:
        """Why core's API cannot be used; empty: it can. A core that cannot write, as on a full disk, serves reads."""
        try:
            with self._rpc.contain_errors():
                async with asyncio.timeout(max(self._bounds.probe_s, 1.0)):
                    answer = await self._health.Check(HealthCheckRequest())
        except (GRPCError, ProtocolError, StreamTerminatedError, OSError, TimeoutError, AttributeError):
            return "core cannot be reached"  # AttributeError: one of grpclib that `contain_errors` does not recognise
        return "" if answer.status == HealthCheckResponse.SERVING else "core does not serve"


def _method(channel: Channel, name: str, request: type[Any], reply: type[Any]) -> Callable[[Any], Any]:
    return UnaryUnaryMethod(channel, f"/{_SERVICE}/{name}", request, reply)


def _translated(name: str, error: Permanent) -> Exception:
    """The error that a client gets when core refuses a read, a cancel or an erasure."""
    cause = error.__cause__
    status = cause.status if isinstance(cause, GRPCError) else None
    if status is Status.NOT_FOUND:
        return NotFound()
    if status is Status.INVALID_ARGUMENT and name == "List":
        return InvalidFields([("cursor", "is not a cursor of this list")])
    return Broken(str(error))
