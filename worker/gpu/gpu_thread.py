"""The GPU thread, on which all engines run, with what the event loop knows about it."""

import math
from dataclasses import dataclass, field

from worker.gpu.watchdog import Pulse
from worker.ports import Threads


class Waits:
    """When each cause that keeps images waiting (load, backpressure, earlier step) last ended, by `Context.clock`."""

    def __init__(self) -> None:
        self.loading_until_s = -math.inf
        self.backpressure_until_s = -math.inf
        self.batch_until_s = -math.inf

    def reason(self, received_s: float) -> str:
        """Why an image received at `received_s` and admitted now had to wait; empty when no cause applies."""
        if self.loading_until_s > received_s:
            return "loading"
        if self.backpressure_until_s > received_s:
            return "backpressure"
        return "batch_running" if self.batch_until_s > received_s else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuThread:
    """`pulse`: its signs of life, for the watchdog. `waits`: why images had to wait for it."""

    threads: Threads
    pulse: Pulse
    waits: Waits = field(default_factory=Waits)
