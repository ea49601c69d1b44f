"""What engines refuse in the same words: what is beyond a model's bounds, and the calls that their capabilities
exclude.
"""

import math
from dataclasses import dataclass

from worker.engines.contract import RenderJob
from worker.engines.errors import EngineError, Unsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a request may ask of one model, as the models file says. Sides in pixels. Unless said, anything."""

    min_width: float = 0
    max_width: float = math.inf
    min_height: float = 0
    max_height: float = math.inf
    min_num_inference_steps: float = 0
    max_num_inference_steps: float = math.inf
    min_guidance_scale: float = 0
    max_guidance_scale: float = math.inf

    @classmethod
    def square(cls, side_px: int) -> "Bounds":
        """Sides of up to that many pixels; all else as by default."""
        return cls(max_width=side_px, max_height=side_px)

    def require(self, job: RenderJob) -> None:
        """Raises Unsupported, whose text names the field and the bound."""
        for name in ("width", "height", "num_inference_steps", "guidance_scale"):
            value, low, high = getattr(job, name), getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if not low <= value <= high:
                bound = f"at least {low:g}" if value < low else f"at most {high:g}"
                raise Unsupported(f"{name} must be {bound} for this model")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSource:
    """Which weights an engine loads. `source` is a folder, a file or a name on the model hub; `config` the folder of
    the configuration where that is apart from a single file; `revision` may be empty.
    """

    model: str
    source: str
    revision: str = ""
    config: str = ""


class NoParking:
    """An engine whose members cannot stand aside."""

    def park(self, job_id: str) -> None:
        """Never called: `capabilities.park` is False."""
        raise EngineError(f"{job_id}: this engine does not park")

    def unpark(self, job_id: str) -> None:
        """Never called: `capabilities.park` is False."""
        raise EngineError(f"{job_id}: this engine does not park")


class NoProcess:
    """An engine without a process that is ours to end."""

    def kill(self) -> None:
        """Never called: `capabilities.restartable` is False."""
        raise EngineError("this engine has no process of its own")
