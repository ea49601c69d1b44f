"""The one thread that all engines are called on, with what is known of it on the event loop."""

import math
from dataclasses import dataclass, field

from worker.gpu.watchdog import Pulse
from worker.ports import Threads


class Waits:
    """When the GPU last ended doing something else than rendering for those who waited meanwhile."""

    def __init__(self) -> None:
        self.loading_until_s = -math.inf
        self.backpressure_until_s = -math.inf
        self.batch_until_s = -math.inf

    def reason(self, received_s: float) -> str:
        """Why an image received then and admitted now had to wait; empty when nothing was in its way."""
        if self.loading_until_s > received_s:
            return "loading"
        if self.backpressure_until_s > received_s:
            return "backpressure"
        return "batch_running" if self.batch_until_s > received_s else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuThread:
    """`pulse`: its signs of life. `waits`: what it did last that kept images waiting."""

    threads: Threads
    pulse: Pulse
    waits: Waits = field(default_factory=Waits)
