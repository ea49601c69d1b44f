"""What core knows of the models, asked for in the background and when a client wants to know: one answer for both.

The gateway runs without weights, so it knows of a model only what the models file says until a worker has told. What a
model can do is kept when its workers fall silent or core starts again; only newer word replaces it. How a model is
just now is told by the last answer alone.
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
    """`watch` is its task. One question at a time, however many want to know; `now` in seconds."""

    def __init__(self, ask: Callable[[], Awaitable[fast.ModelsReply]], *, now: Callable[[], float]) -> None:
        self._ask = ask
        self._now = now
        self._able: dict[str, fast.ModelCapabilities] = {}
        self._reply: fast.ModelsReply | None = None
        self._until_s = float("-inf")
        self._asking = asyncio.Lock()

    async def watch(self) -> NoReturn:
        """Asks core whenever the last answer is too old, so that no submission waits for what a model can do."""
        while True:
            await self._latest()
            await asyncio.sleep(max(0.0, self._until_s - self._now()))

    def capabilities(self, name: str) -> fast.ModelCapabilities | None:
        """What the model can do; None while that is not known."""
        return self._able.get(name)

    async def state(self, name: str) -> ModelState:
        """How the model is just now; unknown while core is away, or older than the question."""
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
        self._able |= {each.name: each.capabilities for each in reply.models if each.capabilities.guidance}
        return reply
