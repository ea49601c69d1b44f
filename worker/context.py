"""Services shared by every part of one worker. Built once, by `assembly`, and passed to each constructor.

Holds what a part reports to (metrics, health, ledger) and general services such as clock, ids and rng. The objects that
a part works on, such as window, queues and engines, are separate constructor arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass

from worker.health import Health
from worker.metrics import Metrics
from worker.ports import Failpoints, NewId, Recorder, Rng, record_nothing
from worker.time_ledger import TimeLedger


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """`clock` is the event loop's time in seconds and may be read from any thread; `wall_ms` is Unix time in
    milliseconds.
    """

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
