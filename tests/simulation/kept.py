"""Schedules that have found a bug: the bug, mended since and planted again for the proof, the seed, and the faults."""

from tests.simulation.faults import Fault

_LOST = Fault(0.0, "loss", "jobs", 25.0, 0.9)
_STALLED = Fault(10.0, "stall_core", "core", 25.0, 0.5, "jobs.send")
_STOPPED = Fault(14.0, "stop_core", "core", 8.0, 0.5)

KEPT: dict[str, tuple[str, tuple[Fault, ...]]] = {
    "a_draining_core_watches_its_rechecks": ("kept-14", (_LOST, _STALLED, _STOPPED)),
    "a_dispatch_counts_though_its_attempt_is_over": (
        "planted-234",
        (
            Fault(3.31, "crash_worker", "worker2", 5.5, 0.82),
            Fault(7.88, "answer_lost", "jobs", 15.5, 0.45),
            Fault(13.64, "crash_worker", "worker1", 4.3, 0.6),
            Fault(28.67, "gpu_hang", "worker2", 12.9, 0.74),
            Fault(35.72, "crash_core", "core", 20.4, 0.74),
            Fault(43.14, "zombie_worker", "worker2", 19.4, 0.7),
            Fault(46.14, "gpu_memory", "worker1", 12.5, 0.71),
        ),
    ),
}
