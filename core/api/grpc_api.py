"""Core's API over gRPC: the calls of core.proto on top of `Service`, and errors as statuses.

NotFound becomes NOT_FOUND, BadRequest INVALID_ARGUMENT, Retryable UNAVAILABLE, a time-out DEADLINE_EXCEEDED.
The messages are those of `schema/fast.py`: with betterproto's, coding takes half of core's time for a submission.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream

from core.api.errors import BadRequest, NotFound
from core.api.service import Service
from infra.retry import Retryable
from schema import fast

_SERVICE = "darkroom.v1.Core"
CALL_DEADLINE_S = 30.0
"""The limit for a call (`Get` adds its wait), even if the caller would wait longer. A change that has begun is still
finished: the writer shields it.
"""


class CoreApi:
    """The calls; what grpclib serves (its `IServable`)."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def submit(self, request: fast.SubmitRequest) -> fast.SubmitReply:
        async with _answering():
            return fast.SubmitReply(results=await self._service.submit(request.items, request.default_spec))

    async def get(self, request: fast.GetRequest) -> fast.GetReply:
        async with _answering(CALL_DEADLINE_S + request.wait_ms / 1000):
            shown = await self._service.get(request.tenant, request.generation_id, request.wait_ms)
            return fast.GetReply(generation=shown)

    async def list(self, request: fast.ListRequest) -> fast.ListReply:
        async with _answering():
            shown, cursor = await self._service.list(
                request.tenant,
                page_size=request.page_size,
                cursor=request.cursor,
                status=request.status,
            )
            return fast.ListReply(generations=[*shown], next_cursor=cursor)

    async def cancel(self, request: fast.CancelRequest) -> fast.CancelReply:
        async with _answering():
            cancelled, shown = await self._service.cancel(request.tenant, request.generation_id)
            return fast.CancelReply(cancelled=cancelled, generation=shown)

    async def erase(self, request: fast.EraseRequest) -> fast.EraseReply:
        async with _answering():
            erased, shown = await self._service.erase(request.tenant, request.generation_id, operator=request.operator)
            return fast.EraseReply(erased=erased, generation=shown)

    async def still_wanted(self, request: fast.StillWantedRequest) -> fast.StillWantedReply:
        async with _answering():
            wanted = self._service.still_wanted(request.worker_id, request.held, request.models)
            return fast.StillWantedReply(wanted=[*wanted])

    async def models(self, _: fast.ModelsRequest) -> fast.ModelsReply:
        async with _answering():
            return self._service.models()

    def __mapping__(self) -> dict[str, Handler]:
        calls: tuple[tuple[str, Callable[[Any], Awaitable[Any]], type[Any], type[Any]], ...] = (
            ("Submit", self.submit, fast.SubmitRequest, fast.SubmitReply),
            ("Get", self.get, fast.GetRequest, fast.GetReply),
            ("List", self.list, fast.ListRequest, fast.ListReply),
            ("Cancel", self.cancel, fast.CancelRequest, fast.CancelReply),
            ("Erase", self.erase, fast.EraseRequest, fast.EraseReply),
            ("StillWanted", self.still_wanted, fast.StillWantedRequest, fast.StillWantedReply),
            ("Models", self.models, fast.ModelsRequest, fast.ModelsReply),
        )
        return {
            f"/{_SERVICE}/{name}": Handler(_unary(call), Cardinality.UNARY_UNARY, request, reply)
            for name, call, request, reply in calls
        }


def _unary(call: Callable[[Any], Awaitable[Any]]) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
    async def serve(stream: Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        await stream.send_message(await call(request))

    return serve


@asynccontextmanager
async def _answering(deadline_s: float = CALL_DEADLINE_S) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except NotFound:
        raise GRPCError(Status.NOT_FOUND, "no such generation") from None
    except BadRequest as error:
        raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from None
    except Retryable as error:
        raise GRPCError(Status.UNAVAILABLE, str(error)) from None
    except TimeoutError:
        raise GRPCError(Status.DEADLINE_EXCEEDED, "core took too long") from None
