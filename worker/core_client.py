"""Asks core which images are still wanted: the adapter behind `ports.StillWanted`. Knows gRPC, and nothing of the
worker's loop.

Channel and `Calling` (spans, deadlines, errors) are infra's, handed in by `app.py`.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from grpclib.client import Channel, UnaryUnaryMethod

from schema import fast, limits
from worker.engines.contract import EngineFacts
from worker.ports import Holding, ListedModel

_METHOD = "darkroom.v1.Core/StillWanted"
_DEADLINE_S = 2.0


class Calling(Protocol):
    """A context around one call, which sets its deadline and raises its errors as Retryable or Permanent."""

    def __call__(self, method: str, *, deadline_s: float) -> AbstractAsyncContextManager[object]: ...


class CoreClient:
    """One channel to core, opened by `app.py`; connects at the first call."""

    def __init__(self, channel: Channel, calling: Calling) -> None:
        self._still_wanted = UnaryUnaryMethod(channel, f"/{_METHOD}", fast.StillWantedRequest, fast.StillWantedReply)
        self._calling = calling

    async def ask(self, worker_id: str, held: Sequence[Holding], models: Sequence[ListedModel]) -> Sequence[bool]:
        """Whether each of `held` is still wanted, in its order. Reports the first MAX_MODELS of `models`. Raises
        Retryable or Permanent.
        """
        request = fast.StillWantedRequest(
            worker_id=worker_id,
            held=[
                fast.HeldImage(
                    image=fast.ImageRef(generation_id=each.generation_id, index=each.index),
                    running=each.running,
                    step=each.step,
                    dispatch=each.dispatch,
                )
                for each in held
            ],
            models=[model_report(each) for each in models[: limits.MAX_MODELS]],
        )
        async with self._calling(_METHOD, deadline_s=_DEADLINE_S):
            reply = await self._still_wanted(request)
        return list(reply.wanted)


def model_report(listed: ListedModel) -> fast.ModelReport:
    """The worker's report of one model, as a message."""
    facts = listed.facts
    return fast.ModelReport(
        name=facts.model,
        revision=facts.model_revision[: limits.MAX_DETAIL_CHARS],
        state=listed.state,
        reason=listed.reason[: limits.MAX_DETAIL_CHARS],
        max_batch=listed.max_batch,
        capabilities=_capabilities(facts),
        engine=facts.engine[: limits.MAX_DETAIL_CHARS],
    )


def _capabilities(facts: EngineFacts) -> fast.ModelCapabilities:
    can = facts.abilities
    return fast.ModelCapabilities(
        negative_prompt=can.negative_prompt,
        guidance=can.guidance,
        guidance_off=can.guidance_off,
        size_factor=can.size_factor,
        schedulers=list(can.schedulers),
        min_width=can.min_width,
        max_width=can.max_width,
        min_height=can.min_height,
        max_height=can.max_height,
        min_steps=can.min_steps,
        max_steps=can.max_steps,
    )
