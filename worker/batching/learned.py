"""What a worker has learned from its own work, shared by the code that measures and the code that decides."""

from dataclasses import dataclass, field

from worker.batching.batch_limits import BatchLimits
from worker.batching.measurements import Measurements
from worker.batching.step_times import StepTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """One per worker; nothing of it outlives the process."""

    step_times: StepTimes = field(default_factory=StepTimes)
    batch_limits: BatchLimits = field(default_factory=BatchLimits)
    measurements: Measurements = field(default_factory=Measurements)
