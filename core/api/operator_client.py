"""The gRPC calls that an operator's command makes to a running core. `app` opens the channel. Knows no command line."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from grpclib.client import Channel, UnaryUnaryMethod

from infra.retry import Permanent
from schema import fast, limits

_SERVICE: Final = "darkroom.v1.Core"
_DEADLINE_S: Final = 30.0


class Calling(Protocol):
    """A context around one call: sets its deadline, and translates its errors to Retryable or Permanent."""

    def __call__(self, method: str, *, deadline_s: float) -> AbstractAsyncContextManager[object]: ...


class OperatorClient:
    """Each call raises Retryable when core cannot be reached, and Permanent when it refuses the caller."""

    def __init__(self, channel: Channel, calling: Calling) -> None:
        self._erase = UnaryUnaryMethod(channel, f"/{_SERVICE}/Erase", fast.EraseRequest, fast.EraseReply)
        self._cancel = UnaryUnaryMethod(channel, f"/{_SERVICE}/Cancel", fast.CancelRequest, fast.CancelReply)
        self._list = UnaryUnaryMethod(channel, f"/{_SERVICE}/List", fast.ListRequest, fast.ListReply)
        self._calling = calling

    async def erase(self, generation_id: str, tenant: str = "") -> fast.EraseReply | None:
        """Erase as an operator; the reply says whether it is erased. None if the tenant (empty: any) has no such
        generation.
        """
        request = fast.EraseRequest(tenant=tenant, generation_id=generation_id, operator=True)
        try:
            async with self._calling(f"{_SERVICE}/Erase", deadline_s=_DEADLINE_S):
                return await self._erase(request)
        except Permanent as error:
            if getattr(getattr(error.__cause__, "status", None), "name", "") != "NOT_FOUND":
                raise
            return None

    async def cancel(self, generation_id: str, tenant: str) -> bool:
        """Cancel a generation; returns whether it is cancelled now."""
        async with self._calling(f"{_SERVICE}/Cancel", deadline_s=_DEADLINE_S):
            return (await self._cancel(fast.CancelRequest(tenant=tenant, generation_id=generation_id))).cancelled

    async def not_erased(self, tenant: str) -> AsyncIterator[str]:
        """The ids of all the tenant's generations that are not erased, newest first."""
        cursor = ""
        while True:
            request = fast.ListRequest(tenant=tenant, page_size=limits.MAX_LIST_PAGE, cursor=cursor)
            async with self._calling(f"{_SERVICE}/List", deadline_s=_DEADLINE_S):
                page = await self._list(request)
            for each in page.generations:
                if not each.erased:
                    yield each.generation_id
            cursor = page.next_cursor
            if not cursor:
                return
