"""What core knows of the models, cached: refreshed in the background, and when a client lists the models.

The gateway has no weights: until a worker has reported a model, only its entry in the models file is known. A model's
capabilities are kept while its workers are silent and when core restarts; only a newer report replaces them. Its
current state comes from the last answer alone.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

from gateway.errors import GatewayError
from gateway.served_models.states import UNKNOWN, ModelState, state_of
from schema import fast

KEPT_S: Final = 2.0
_DEADLINE_S: Final = 1.0


class ModelReports:
    """The cache; `watch` is its task. At most one call is in flight, however many callers wait; `now` in seconds."""

    def __init__(self, ask: Callable[[], Awaitable[fast.ModelsReply]], *, now: Callable[[], float]) -> None:
        self._ask = ask
        self._now = now
        self._capabilities: dict[str, fast.ModelCapabilities] = {}
        self._reply: fast.ModelsReply | None = None
        self._until_s = float("-inf")
        self._asking = asyncio.Lock()

    async def watch(self) -> NoReturn:
        """Asks core whenever the last answer is too old, so that no submission waits for capabilities."""
        while True:
            await self._latest()
            await asyncio.sleep(max(0.0, self._until_s - self._now()))

    def capabilities(self, name: str) -> fast.ModelCapabilities | None:
        """The capabilities of the model; None while no worker has reported them."""
        return self._capabilities.get(name)

    async def state(self, name: str) -> ModelState:
        """The current state of the model; unknown while core cannot be reached, or does not know the call."""
        reply = await self._latest()
        return UNKNOWN if reply is None else state_of(reply, name)

    async def _latest(self) -> fast.ModelsReply | None:
        async with self._asking:
            if self._now() >= self._until_s:
                self._reply = await self._asked()
                self._until_s = self._now() + KEPT_S
            return self._reply

    async def _asked(self) -> fast.ModelsReply | None:
        try:
            async with asyncio.timeout(_DEADLINE_S):
                reply = await self._ask()
        except (GatewayError, TimeoutError):
            return None
        self._capabilities |= {each.name: each.capabilities for each in reply.models if each.capabilities.guidance}
        return reply
