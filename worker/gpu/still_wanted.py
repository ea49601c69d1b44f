"""Asks core which of the held images are still wanted, and reports their progress and the states of the models.
Optional, batched, fails open.

The worker asks before every batch, and about once a second for every image whose reply is not accepted yet, since
core presumes an image without a report lost, and a picture may wait long for its store. After a failed call batches
go ahead without asking for a while: an unwanted picture costs only GPU time.
"""

import asyncio
from collections.abc import Sequence

import structlog

from infra.retry import Permanent, Retryable, error_text
from schema import limits
from worker.context import Context
from worker.gpu.models.model_pool import ModelPool
from worker.holding.types import Held, State
from worker.holding.window import Window
from worker.output.delivery import Delivery
from worker.ports import Holding, StillWanted

_log = structlog.get_logger()
DEADLINE_S = 1.0
SHUN_S = 5.0
"""After a failed call, batches are formed without asking for this long, or until a call succeeds."""


class StillWantedCheck:
    """`port` is None for a worker without core."""

    def __init__(
        self,
        context: Context,
        window: Window,
        delivery: Delivery,
        models: ModelPool,
        port: StillWanted | None,
        *,
        every_s: float,
    ) -> None:
        self._context = context
        self._window = window
        self._delivery = delivery
        self._port = port
        self._models = models
        self._every_s = every_s
        self._shunned_until_s = 0.0

    async def run(self) -> None:
        """Ask about everything held, every `every_s` seconds, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            open_ones = [held for held in self._window.held() if held.state is not State.SETTLED]
            await self._ask([held for held in open_ones if not held.unwanted])

    async def before_batch(self, members: Sequence[Held]) -> None:
        """Drop those of `members` that are no longer wanted. Does not ask within SHUN_S of a failed call."""
        if asyncio.get_running_loop().time() >= self._shunned_until_s:
            await self.sift(members)

    async def sift(self, members: Sequence[Held]) -> None:
        """Ask core about `members`, and drop those that are no longer wanted."""
        if members:
            await self._ask(members)

    async def _ask(self, members: Sequence[Held]) -> None:
        """Calls core even when nothing is held, since the call also reports the states of the models."""
        if self._port is None:
            return
        # The list is cut at the limit: images that have left the GPU go last, as dropping them saves no GPU time.
        members = sorted(members, key=lambda held: held.state is State.FINISHING)[: limits.MAX_STILL_WANTED]
        holdings = [
            Holding(
                generation_id=held.job.image.generation_id,
                index=held.job.image.index,
                running=held.state in (State.RUNNING, State.FINISHING),
                step=held.step,
                dispatch=held.job.dispatch,
            )
            for held in members
        ]
        try:
            async with asyncio.timeout(DEADLINE_S):
                wanted = await self._port.ask(self._context.worker_id, holdings, self._models.listed())
        except (Retryable, Permanent, TimeoutError) as error:
            self._shunned_until_s = asyncio.get_running_loop().time() + SHUN_S
            self._context.metrics.call_failures.labels(call="still_wanted").inc()
            _log.debug("still_wanted.failed", reason=error_text(error))
            return
        self._shunned_until_s = 0.0
        for held, asked, keep in zip(members, holdings, wanted, strict=False):
            # If a newer dispatch has arrived during the call, the answer is about the older one and does not count.
            if not keep and held.job.dispatch == asked.dispatch:
                await self._drop(held)

    async def _drop(self, held: Held) -> None:
        if held.state is State.WAITING:
            await self._delivery.drop(held)
        elif held.state in (State.STARTED, State.RUNNING):
            self._window.mark_unwanted(held)
            self._models.engine(held.job.render.model).evict(held.id)
        elif held.state is State.FINISHING:
            self._window.mark_unwanted(held)
