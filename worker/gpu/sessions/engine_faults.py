"""What an engine's exception means for the images at work, and how the engine is reset. On the GPU thread."""

from dataclasses import dataclass

import structlog

from worker.engines.contract import Engine
from worker.engines.error_places import places, text
from worker.engines.errors import EngineAway, EngineDied, EngineLost, LoadFailed, OutOfMemory, Unsupported
from worker.gpu.models.model_faults import refusal_of
from worker.holding.types import Failure

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFault:
    """Holds no exception that was raised: its traceback would keep tensors alive. `away`: set when the model cannot be
    used for now, for a cause that has nothing to do with the images.
    """

    failure: Failure
    detail: str
    died: bool = False
    away: EngineAway | None = None


def fault_of(error: BaseException) -> EngineFault:
    """Classify what an engine raised, which may be anything; an unknown error counts as the model's."""
    match error:
        case EngineAway():
            away = EngineAway(str(error), pause_s=error.pause_s)
            return EngineFault(failure=Failure.MODEL_AWAY, detail=str(error), away=away)
        case OutOfMemory() | MemoryError():
            return EngineFault(failure=Failure.OUT_OF_MEMORY, detail="out of memory")
        case EngineDied():
            return EngineFault(failure=Failure.MODEL_ERROR, detail="the engine's process died", died=True)
        case Unsupported():
            failure, detail = refusal_of(error)
            return EngineFault(failure=failure, detail=detail)
    kind = type(error).__name__
    _log.warning("model.raised", error=kind, at=places(error), error_text=text(error))
    return EngineFault(failure=Failure.MODEL_ERROR, detail=f"the model raised {kind}")


def reset(engine: Engine) -> EngineAway | None:
    """Make the engine ready again; None on success. When that fails, returns EngineAway for a model outside this
    process, which alone is lost, and raises EngineLost for one inside it, since then the device is lost to all models.
    """
    try:
        engine.reset()
    except (EngineAway, EngineLost, LoadFailed) as error:
        why = str(error) or type(error).__name__
    except Exception as error:  # noqa: BLE001  (what is left of a model may raise anything)
        _log.error("engine.not_reset", error=type(error).__name__, at=places(error), error_text=text(error))
        why = f"reset raised {type(error).__name__}"
    else:
        return None
    if engine.capabilities.apart:
        return EngineAway(why)
    raise EngineLost(why)
