"""The dependencies that all parts of core share: metrics, failpoints, clocks and randomness.

`assembly` builds it once and passes it to the constructors. What a part works on (writer, queues, stores) is a separate
argument.
"""

from collections.abc import Callable
from dataclasses import dataclass

from core.domain.decide import Now
from core.metrics import Metrics
from core.ports import Failpoints, Rng


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """`now_ms` is core's running time, `wall_ms` Unix time, both in milliseconds."""

    metrics: Metrics
    failpoints: Failpoints
    now_ms: Callable[[], int]
    wall_ms: Callable[[], int]
    rng: Rng

    def now(self) -> Now:
        """Both times, for a decision."""
        return Now(at_ms=self.wall_ms(), running_ms=self.now_ms())
