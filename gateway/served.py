"""What each model can do, as its workers told core: kept here so that no submission waits for it.

The gateway runs without weights, so it knows of a model only what the models file says until a worker has told. What a
model can do is kept when its workers fall silent or core begins anew; only newer word replaces it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NoReturn

from gateway.errors import GatewayError
from schema import pb

_EVERY_S = 2.0


class Served:
    """`watch` is its task; the rest answers at once."""

    def __init__(self, ask: Callable[[], Awaitable[pb.ModelsReply]], *, every_s: float = _EVERY_S) -> None:
        self._ask = ask
        self._every_s = every_s
        self._able: dict[str, pb.ModelCapabilities] = {}

    async def watch(self) -> NoReturn:
        """Asks core now and then. One that is away, or older than the question, changes nothing."""
        while True:
            with contextlib.suppress(GatewayError):
                self._learn(await self._ask())
            await asyncio.sleep(self._every_s)

    def capabilities(self, name: str) -> pb.ModelCapabilities | None:
        """What the model can do; None while that is not known."""
        return self._able.get(name)

    def _learn(self, reply: pb.ModelsReply) -> None:
        self._able |= {each.name: each.capabilities for each in reply.models if each.capabilities.guidance}
