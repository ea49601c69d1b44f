"""What is the same for every part of one worker. Built once, by `assembly`, and handed to each constructor.

Holds what a part reports to or takes from the world around it; what a part works on (window, queues, engines) it is
given by name.
"""

from collections.abc import Callable
from dataclasses import dataclass

from worker.health import Health
from worker.metrics import Metrics
from worker.ports import Failpoints, NewId, Recorder, Rng, record_nothing
from worker.time_ledger import TimeLedger


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """`clock` is the event loop's time in seconds and may be read from any thread; `wall_ms` is Unix time."""

    worker_id: str
    metrics: Metrics
    health: Health
    ledger: TimeLedger
    failpoints: Failpoints
    clock: Callable[[], float]
    wall_ms: Callable[[], int]
    new_id: NewId
    rng: Rng
    recorder: Recorder = record_nothing
