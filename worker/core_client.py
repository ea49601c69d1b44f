"""Asks core which images are still wanted. Fits `ports.StillWanted`; knows gRPC, and nothing of the worker's loop.

Channel and `Calling` (spans, deadlines, errors) are infra's, handed in by `app.py`.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from grpclib.client import Channel

from schema import pb
from worker.ports import Holding

_METHOD = "darkroom.v1.Core/StillWanted"
_DEADLINE_S = 2.0


class Calling(Protocol):
    """Around one call: its deadline, and its errors as Retryable or Permanent."""

    def __call__(self, method: str, *, deadline_s: float) -> AbstractAsyncContextManager[object]: ...


class CoreClient:
    """One channel to core, opened by `app.py`; connects at the first call."""

    def __init__(self, channel: Channel, calling: Calling) -> None:
        self._stub = pb.CoreStub(channel)
        self._calling = calling

    async def ask(self, worker_id: str, held: Sequence[Holding]) -> Sequence[bool]:
        """Raises Retryable or Permanent."""
        request = pb.StillWantedRequest(
            worker_id=worker_id,
            held=[
                pb.HeldImage(
                    image=pb.ImageRef(generation_id=each.generation_id, index=each.index),
                    running=each.running,
                    step=each.step,
                )
                for each in held
            ],
        )
        async with self._calling(_METHOD, deadline_s=_DEADLINE_S):
            reply = await self._stub.still_wanted(request)
        return reply.wanted
