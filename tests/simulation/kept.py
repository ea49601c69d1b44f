"""Planted bugs with the faults that bring each out: those that schedules found once, and those rarely found by chance.

Faults and no seed: what one seed brings about changes with every change of the program. A plan here finds its bug in
at least every sixth schedule, whatever the seed.
"""

from tests.simulation.faults import Fault

_LOST = Fault(0.0, "loss", "jobs", 60.0, 0.9)
_SLOW = Fault(1.0, "slow", "jobs", 60.0, 0.9)

KEPT: dict[str, tuple[Fault, ...]] = {
    "a_draining_core_watches_its_rechecks": (
        _LOST,
        *(Fault(at_s, "stall_core", "core", 12.0, 0.5, "jobs.send") for at_s in (10.0, 24.0, 38.0)),
        *(Fault(at_s + 4, "stop_core", "core", 6.0, 0.5) for at_s in (10.0, 24.0, 38.0)),
    ),
    # Workers are done with a job, without a picture, before core has recorded that it was sent.
    "a_dispatch_counts_though_its_attempt_is_over": (
        _SLOW,
        *(Fault(at_s, "gpu_error", "worker1", 2.0, 0.5) for at_s in range(3, 60, 4)),
        *(Fault(at_s, "gpu_error", "worker2", 2.0, 0.5) for at_s in range(3, 60, 4)),
    ),
    # The worker that can use the model pauses again and again, shorter than core remembers what it reported, while the
    # other one refuses. By chance, one schedule in seventy.
    "refusals_of_broken_workers_count": tuple(
        Fault(at_s, "zombie_worker", "worker2", 20.0, 0.5) for at_s in (2.0, 25.0, 48.0, 71.0)
    ),
    "a_new_log_takes_work_before_it_is_noted": (Fault(0.0, "unreachable", "public", 20.0, 0.5),),
    # Workers stop, and go on when what they hold, copies too, was rendered by the other and erased. They are told
    # nothing, and most of their replies are lost.
    "objects_are_deleted_once_and_not_looked_for_again": (
        Fault(0.0, "duplicate", "jobs", 60.0, 0.9),
        Fault(10.0, "zombie_worker", "worker1", 60.0, 0.5, "jobs.receive"),
        Fault(40.0, "zombie_worker", "worker2", 60.0, 0.5),
        *(Fault(at_s, "unreachable", "rpc", 20.0, 0.5) for at_s in (68.0, 98.0)),
        *(Fault(at_s, "loss", "replies", 20.0, 0.95) for at_s in (68.0, 98.0)),
    ),
}
