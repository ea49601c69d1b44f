"""Asks core which images are still wanted. Fits `ports.StillWanted`; knows gRPC, and nothing of the worker's loop."""

from collections.abc import Sequence

from grpclib.client import Channel

from infra.rpc import calling
from schema import pb
from worker.ports import Holding

_METHOD = "darkroom.v1.Core/StillWanted"
_DEADLINE_S = 2.0


class CoreClient:
    """One channel to core, opened by `app.py`; connects at the first call."""

    def __init__(self, channel: Channel) -> None:
        self._stub = pb.CoreStub(channel)

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
        async with calling(_METHOD, deadline_s=_DEADLINE_S):
            reply = await self._stub.still_wanted(request)
        return reply.wanted
