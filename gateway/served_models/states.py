"""The state of a model as clients see it, from core's report. Pure."""

from dataclasses import dataclass
from typing import Any, Final

from schema import fast, pb

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


def state_of(reply: fast.ModelsReply, model: str) -> ModelState:
    """The state of the model of this name.

    A model without a report has no worker only if every worker has reported; otherwise its state is unknown.
    """
    status = next((each for each in reply.models if each.name == model), None)
    if status is not None:
        return _shown(status)
    sure = reply.complete and not reply.silent_workers
    return ModelState(state="no_worker", reason=None, workers=0, capabilities=None) if sure else UNKNOWN


def _shown(status: fast.ModelStatus) -> ModelState:
    idle = status.workers - status.loaded - status.loading - status.broken - status.away
    if status.loaded or idle > 0:  # an idle worker loads it on demand
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


def _capabilities(can: fast.ModelCapabilities) -> dict[str, Any] | None:
    if not can.guidance:
        return None
    return {
        "negative_prompt": can.negative_prompt,
        "guidance": can.guidance,
        "guidance_off": can.guidance_off,
        "size_factor": can.size_factor or None,
        "schedulers": list(can.schedulers),
    }
