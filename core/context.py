"""What is the same for every part of core. Built once, by `assembly`, and handed to each constructor.

Holds what a part reports to or takes from the world around it; what a part works on (writer, queues, stores) it is
given by name.
"""

from collections.abc import Callable
from dataclasses import dataclass

from core.domain.decide import Now
from core.metrics import Metrics
from core.ports import Failpoints, Rng


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """`now_ms` is core's running time, `wall_ms` Unix time."""

    metrics: Metrics
    failpoints: Failpoints
    now_ms: Callable[[], int]
    wall_ms: Callable[[], int]
    rng: Rng

    def now(self) -> Now:
        """Both times, for a decision."""
        return Now(at_ms=self.wall_ms(), running_ms=self.now_ms())
