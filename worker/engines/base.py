"""What several engines share: a model's bounds, where its weights are, and mixins for the calls that an engine's
capabilities exclude.
"""

import math
from dataclasses import dataclass

from worker.engines.contract import RenderJob
from worker.engines.errors import EngineError, Unsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Inclusive limits of the models file on requests for one model; sides in pixels. The defaults allow anything."""

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
        """Bounds that limit both sides to `side_px` pixels and nothing else."""
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
    """Mixin for engines that cannot park members."""

    def park(self, job_id: str) -> None:
        """Never called: `capabilities.park` is False."""
        raise EngineError(f"{job_id}: this engine does not park")

    def unpark(self, job_id: str) -> None:
        """Never called: `capabilities.park` is False."""
        raise EngineError(f"{job_id}: this engine does not park")


class NoProcess:
    """Mixin for engines without a process that the worker could kill."""

    def kill(self) -> None:
        """Never called: `capabilities.restartable` is False."""
        raise EngineError("this engine has no process of its own")
