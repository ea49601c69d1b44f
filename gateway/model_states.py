"""What core knows of the models just now, asked for when somebody wants to know, and kept for two seconds."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import Broken, Unavailable
from gateway.ports import Core
from schema import pb

KEPT_S: Final = 2.0
_DEADLINE_S: Final = 1.0
_SHOWN_WORKERS: Final = 8
STATES: Final = ("available", "loading", "away", "broken", "no_worker", "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """One model as a client sees it. `state` is one of STATES."""

    state: str
    reason: str | None
    workers: int
    capabilities: dict[str, Any] | None


UNKNOWN: Final = ModelState(state="unknown", reason=None, workers=0, capabilities=None)


class ModelStates:
    """One question at a time, however many want to know; `now` in seconds. While core is away, nothing is known."""

    def __init__(self, core: Core, *, now: Callable[[], float]) -> None:
        self._core = core
        self._now = now
        self._reply: pb.ModelsReply | None = None
        self._until_s = float("-inf")
        self._asking = asyncio.Lock()

    async def of(self, model: str) -> ModelState:
        """How it is with the model of this name."""
        reply = await self._latest()
        if reply is None:
            return UNKNOWN
        status = next((each for each in reply.models if each.name == model), None)
        if status is not None:
            return _shown(status)
        sure = reply.complete and not reply.silent_workers
        return ModelState(state="no_worker", reason=None, workers=0, capabilities=None) if sure else UNKNOWN

    async def _latest(self) -> pb.ModelsReply | None:
        async with self._asking:
            if self._now() >= self._until_s:
                self._reply = await self._asked()
                self._until_s = self._now() + KEPT_S
            return self._reply

    async def _asked(self) -> pb.ModelsReply | None:
        try:
            async with asyncio.timeout(_DEADLINE_S):
                return await self._core.models()
        except (Unavailable, Broken, TimeoutError):  # Broken: a core that does not know the question
            return None


def _shown(status: pb.ModelStatus) -> ModelState:
    idle = status.workers - status.loaded - status.loading - status.broken - status.away
    if status.loaded or idle > 0:
        state = "available"
    elif status.loading:
        state = "loading"
    else:
        state = "away" if status.away else "broken"
    reasons = [each.reason for each in status.out if (each.state == pb.ModelState.BROKEN) == (state != "away")]
    return ModelState(
        state=state,
        reason=next(iter(reasons), None),
        workers=status.workers,
        capabilities=_capabilities(status.capabilities),
    )


def _capabilities(can: pb.ModelCapabilities) -> dict[str, Any] | None:
    if not can.guidance:
        return None
    return {
        "negative_prompt": can.negative_prompt,
        "guidance": can.guidance,
        "guidance_off": can.guidance_off,
        "size_factor": can.size_factor or None,
        "schedulers": list(can.schedulers),
    }
