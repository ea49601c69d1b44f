"""Core's API over gRPC: the generated service on top of `Service`, and errors as statuses.

NotFound becomes NOT_FOUND, BadRequest INVALID_ARGUMENT, Retryable UNAVAILABLE, a time-out DEADLINE_EXCEEDED.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpclib import GRPCError, Status

from core.service import BadRequest, NotFound, Service
from infra.retry import Retryable
from schema import pb

CALL_DEADLINE_S = 30.0
"""However long the caller would wait. A change that has begun is finished all the same: the writer shields it."""


class CoreApi(pb.CoreBase):
    """The five calls."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def submit(self, submit_request: pb.SubmitRequest) -> pb.SubmitReply:
        async with _answering():
            return pb.SubmitReply(results=await self._service.submit(submit_request.items))

    async def get(self, get_request: pb.GetRequest) -> pb.GetReply:
        async with _answering(CALL_DEADLINE_S + get_request.wait_ms / 1000):
            shown = await self._service.get(get_request.tenant, get_request.generation_id, get_request.wait_ms)
            return pb.GetReply(generation=shown)

    async def list(self, list_request: pb.ListRequest) -> pb.ListReply:
        async with _answering():
            shown, cursor = await self._service.list(
                list_request.tenant,
                page_size=list_request.page_size,
                cursor=list_request.cursor,
                status=int(list_request.status),
            )
            return pb.ListReply(generations=[*shown], next_cursor=cursor)

    async def cancel(self, cancel_request: pb.CancelRequest) -> pb.CancelReply:
        async with _answering():
            cancelled, shown = await self._service.cancel(cancel_request.tenant, cancel_request.generation_id)
            return pb.CancelReply(cancelled=cancelled, generation=shown)

    async def still_wanted(self, still_wanted_request: pb.StillWantedRequest) -> pb.StillWantedReply:
        async with _answering():
            wanted = self._service.still_wanted(still_wanted_request.worker_id, still_wanted_request.held)
            return pb.StillWantedReply(wanted=[*wanted])


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
