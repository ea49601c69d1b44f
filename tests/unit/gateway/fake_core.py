"""Core's API in memory, for tests of the gateway: a real gRPC server with the outcomes of the real one.

It speaks betterproto on the wire where the gateway speaks upb. Generations stay queued until a test moves them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from grpclib import GRPCError, Status
from grpclib.health.v1.health_grpc import HealthBase
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.server import Server, Stream

from infra import rpc
from schema import limits, pb

NOW_MS = 1_763_818_000_123
_PAGE_MARK = "after."


@dataclass(slots=True, kw_only=True)
class Stored:
    """One generation, with what its submission said."""

    tenant: str
    item: pb.SubmitItem
    view: pb.GenerationView


@dataclass(slots=True, kw_only=True)
class FakeCore:
    """The service. Tests read and set its fields."""

    backlog_cap: int = 1_000_000
    retry_after_s: int = 7
    bound: int = 0
    default_specs: list[pb.GenerationSpec] = field(default_factory=list)
    stored: dict[str, Stored] = field(default_factory=dict)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    gets: list[pb.GetRequest] = field(default_factory=list)
    hold: asyncio.Event | None = None
    refuse_with: Status | None = None
    break_next: int = 0
    lose_answers: int = 0
    serving: bool = True
    probes: int = 0
    hold_probes: asyncio.Event | None = None
    hold_waits: asyncio.Event | None = None
    hold_lists: asyncio.Event | None = None
    lists: list[str] = field(default_factory=list)
    models_reply: pb.ModelsReply = field(default_factory=pb.ModelsReply)
    models_asked: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def submit(self, request: pb.SubmitRequest) -> pb.SubmitReply:
        """Decides each item on its own."""
        self.batches.append(len(request.items))
        self.default_specs.append(request.default_spec)
        if self.hold is not None:
            await self.hold.wait()
        self._maybe_refuse()
        results = [self._decide(item) for item in request.items]
        if self.lose_answers:
            self.lose_answers -= 1
            raise GRPCError(Status.UNAVAILABLE)
        return pb.SubmitReply(results=results)

    async def get(self, request: pb.GetRequest) -> pb.GetReply:
        """Waits for an end, as long as asked."""
        self.gets.append(request)
        self._maybe_refuse()
        stored = self._find(request.tenant, request.generation_id)
        if request.wait_ms and self.hold_waits is not None:
            await self.hold_waits.wait()
        elif request.wait_ms:
            try:
                async with asyncio.timeout(request.wait_ms / 1000), self.changed:
                    await self.changed.wait_for(lambda: stored.view.status > pb.GenerationStatus.RUNNING)
            except TimeoutError:
                pass
        return pb.GetReply(generation=stored.view)

    async def list(self, request: pb.ListRequest) -> pb.ListReply:
        """Newest first."""
        self.lists.append(request.tenant)
        if self.hold_lists is not None:
            await self.hold_lists.wait()
        self._maybe_refuse()
        mine = [each for each in reversed(self.stored.values()) if each.tenant == request.tenant]
        wanted = [each.view for each in mine if int(request.status) in (0, int(each.view.status))]
        start = 0
        if request.cursor:
            if not request.cursor.removeprefix(_PAGE_MARK).isdecimal():
                raise GRPCError(Status.INVALID_ARGUMENT, "cursor")
            start = int(request.cursor.removeprefix(_PAGE_MARK))
        end = start + request.page_size
        more = f"{_PAGE_MARK}{end}" if end < len(wanted) else ""
        return pb.ListReply(generations=wanted[start:end], next_cursor=more)

    async def cancel(self, request: pb.CancelRequest) -> pb.CancelReply:
        """Cancels what has not ended."""
        self._maybe_refuse()
        stored = self._find(request.tenant, request.generation_id)
        cancelled = stored.view.status <= pb.GenerationStatus.RUNNING
        if cancelled:
            await self.move(stored.view.generation_id, pb.GenerationStatus.CANCELLED, pb.ImageStatus.DROPPED)
        return pb.CancelReply(cancelled=cancelled, generation=stored.view)

    async def erase(self, request: pb.EraseRequest) -> pb.EraseReply:
        """Erases what has ended."""
        self._maybe_refuse()
        view = self._find(request.tenant, request.generation_id).view
        if view.status <= pb.GenerationStatus.RUNNING:
            return pb.EraseReply(erased=False, generation=view)
        if not view.erased:
            view.erased, view.version = True, view.version + 1
            view.prompts, view.spec.seed = pb.Prompts(), 0
            for image in view.images:
                image.seed, image.public_key, image.sha256, image.size_bytes = 0, "", b"", 0
                if image.status == pb.ImageStatus.PUBLISHED:
                    image.status = pb.ImageStatus(pb.ImageStatus.ERASED)
        return pb.EraseReply(erased=True, generation=view)

    async def still_wanted(self, request: pb.StillWantedRequest) -> pb.StillWantedReply:
        """Not the gateway's."""
        raise GRPCError(Status.UNIMPLEMENTED)

    async def models(self, _: pb.ModelsRequest) -> pb.ModelsReply:
        """What the test has set. Asked in the background: it takes no part in troubles that a test has ordered."""
        self.models_asked += 1
        return self.models_reply

    async def move(self, generation_id: str, status: int, images: int) -> pb.GenerationView:
        """Puts a generation and all its images into a status."""
        view = self.stored[generation_id].view
        async with self.changed:
            view.status = pb.GenerationStatus(status)
            view.version += 1
            view.backlog_position = 0
            view.started_at_ms = NOW_MS + 10
            if status > pb.GenerationStatus.RUNNING:
                view.finished_at_ms = NOW_MS + 20
            for image in view.images:
                image.status = pb.ImageStatus(images)
                if images == pb.ImageStatus.PUBLISHED:
                    image.public_key, image.sha256, image.size_bytes = f"token/{image.index}.png", b"\x01" * 32, 1234
                if images == pb.ImageStatus.FAILED:
                    image.failure = pb.AttemptFailure.MODEL_ERROR  # type: ignore[assignment]
            self.changed.notify_all()
        return view

    def _maybe_refuse(self) -> None:
        if self.break_next:
            self.break_next -= 1
            raise GRPCError(Status.UNAVAILABLE)
        if self.refuse_with is not None:
            raise GRPCError(self.refuse_with, "an inner secret")

    def _find(self, tenant: str, generation_id: str) -> Stored:
        stored = self.stored.get(generation_id)
        if stored is None or stored.tenant != tenant:
            raise GRPCError(Status.NOT_FOUND, "no such generation")
        return stored

    def _decide(self, item: pb.SubmitItem) -> pb.SubmitResult:
        known = self.keys.get((item.tenant, item.idempotency_key)) if item.idempotency_key else None
        if known is not None and self.stored[known].item.body_sha256 != item.body_sha256:
            return pb.SubmitResult(outcome=pb.SubmitOutcome.KEY_CONFLICT)  # type: ignore[arg-type]
        known = known or (item.generation_id if item.generation_id in self.stored else None)
        if known is not None:
            return _result(pb.SubmitOutcome.REPLAYED, self.stored[known].view)
        if len(self.stored) >= self.backlog_cap:
            return pb.SubmitResult(
                outcome=pb.SubmitOutcome.BACKLOG_FULL,  # type: ignore[arg-type]
                retry_after_s=self.retry_after_s,
                bound=pb.BacklogBound(self.bound),
            )
        if item.prompts.prompt == "core says no":
            return pb.SubmitResult(outcome=pb.SubmitOutcome.INVALID, field="prompts.prompt", detail="is not liked")  # type: ignore[arg-type]
        view = _view(item, len(self.stored) + 1)
        self.stored[item.generation_id] = Stored(tenant=item.tenant, item=item, view=view)
        if item.idempotency_key:
            self.keys[item.tenant, item.idempotency_key] = item.generation_id
        return _result(pb.SubmitOutcome.ACCEPTED, view)


def _result(outcome: int, view: pb.GenerationView) -> pb.SubmitResult:
    return pb.SubmitResult(outcome=pb.SubmitOutcome(outcome), generation=view)


def _view(item: pb.SubmitItem, position: int) -> pb.GenerationView:
    return pb.GenerationView(
        generation_id=item.generation_id,
        status=pb.GenerationStatus(1),
        version=1,
        spec=item.spec,
        prompts=item.prompts,
        priority=item.priority,
        ttl_s=item.ttl_s,
        requested_at_ms=NOW_MS,
        images=[
            pb.ImageView(index=index, status=pb.ImageStatus(1), seed=(item.spec.seed + index) % limits.SEED_MODULUS)
            for index in range(item.spec.n)
        ],
        backlog_position=position,
    )


class _Service(pb.CoreBase):
    """FakeCore under the names that the generated base wants."""

    def __init__(self, core: FakeCore) -> None:
        self._core = core

    async def submit(self, submit_request: pb.SubmitRequest) -> pb.SubmitReply:
        return await self._core.submit(submit_request)

    async def get(self, get_request: pb.GetRequest) -> pb.GetReply:
        return await self._core.get(get_request)

    async def list(self, list_request: pb.ListRequest) -> pb.ListReply:
        return await self._core.list(list_request)

    async def cancel(self, cancel_request: pb.CancelRequest) -> pb.CancelReply:
        return await self._core.cancel(cancel_request)

    async def models(self, models_request: pb.ModelsRequest) -> pb.ModelsReply:
        return await self._core.models(models_request)

    async def erase(self, erase_request: pb.EraseRequest) -> pb.EraseReply:
        return await self._core.erase(erase_request)


class _Health(HealthBase):
    """Says what the test says."""

    def __init__(self, core: FakeCore) -> None:
        self._core = core

    async def Check(self, stream: "Stream[HealthCheckRequest, HealthCheckResponse]") -> None:  # noqa: N802
        await stream.recv_message()
        self._core.probes += 1
        if self._core.hold_probes is not None:
            await self._core.hold_probes.wait()
        status = HealthCheckResponse.SERVING if self._core.serving else HealthCheckResponse.NOT_SERVING
        await stream.send_message(HealthCheckResponse(status=status))

    async def Watch(self, stream: "Stream[HealthCheckRequest, HealthCheckResponse]") -> None:  # noqa: N802
        raise GRPCError(Status.UNIMPLEMENTED)


@asynccontextmanager
async def serving(core: FakeCore, *, token: str = "", port: int = 0) -> AsyncIterator[tuple[Server, int]]:
    """Serves on a loopback port; gives the server and its port."""
    server = rpc.BoundedServer([_Service(core), _Health(core)], connections=100)
    rpc.guard(server, token=token, max_bytes=limits.MAX_RPC_BYTES)
    bound = await server.listen("127.0.0.1", port)
    try:
        yield server, bound
    finally:
        server.close()
        await server.wait_closed()
