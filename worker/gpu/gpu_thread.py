"""The one thread that all engines are called on, with what is known of it on the event loop."""

from dataclasses import dataclass, field

from worker.gpu.render_record import Waits
from worker.gpu.watchdog import Pulse
from worker.ports import Threads


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuThread:
    """`pulse`: its signs of life. `waits`: what it did last that kept images waiting."""

    threads: Threads
    pulse: Pulse
    waits: Waits = field(default_factory=Waits)
