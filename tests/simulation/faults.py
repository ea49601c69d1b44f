"""What goes wrong in one schedule: a plan drawn from the seed. Data, so that a failing one can be made smaller."""

from dataclasses import dataclass
from random import Random

from tests.simulation.world import QUEUES, STORES

STORM_S = 50.0
"""Faults begin within this time, and are all over some time after it."""

LONGEST_S = 25.0
_WORKERS = ("worker1", "worker2")
_SERVICES = (*QUEUES, *STORES, "rpc")

AT_ONCE: dict[str, tuple[str, ...]] = {
    "crash_core": ("core",),
    "stop_core": ("core",),
    "stall_core": ("core",),
    "crash_worker": _WORKERS,
    "stop_worker": _WORKERS,
    "zombie_worker": _WORKERS,
    "gpu_hang": _WORKERS,
    "gpu_memory": _WORKERS,
    "gpu_error": _WORKERS,
    "gpu_lost": _WORKERS,
    "purge": QUEUES,
    "queues_gone": ("all",),
    "expose": QUEUES,
    "dead_letter": ("jobs",),
    "object_gone": ("temp",),
    "object_altered": ("temp",),
    "clock_step": ("wall",),
    "log_broken": ("log",),
}
"""Faults of a moment, and what they may hit."""

WEATHER: dict[str, tuple[str, ...]] = {
    "duplicate": QUEUES,
    "delay": QUEUES,
    "reorder": QUEUES,
    "loss": QUEUES,
    "corrupt": QUEUES,
    "partial": QUEUES,
    "unreachable": (*_SERVICES, "all"),
    "throttled": _SERVICES,
    "answer_lost": _SERVICES,
    "slow": _SERVICES,
    "log_full": ("log",),
    "log_busy": ("log",),
}
"""Faults that last, and what they may hit."""

KINDS = AT_ONCE | WEATHER
_FAVOURITES = ("crash_core", "crash_core", "crash_worker", "crash_worker", "zombie_worker", "loss", "purge")

CORE_POINTS = (
    *("log.append",) * 12,
    "jobs.send",
    "temp.head",
    "public.copy",
    "public.head",
    "replies.delete",
    "dead.delete",
)
WORKER_POINTS = ("temp.put", "replies.send", "jobs.delete", "jobs.receive", "jobs.extend")
"""Where crashes lie in wait: between two calls to the world lies everything that can go wrong."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, to a target, for a while; `size` from 0 to 1 says how badly.

    `point`: it waits until the target is there, and strikes a moment later.
    """

    at_s: float
    kind: str
    target: str
    lasts_s: float
    size: float
    point: str = ""

    def __str__(self) -> str:
        where = f" at {self.point}" if self.point else ""
        return f"{self.at_s:.1f} s: {self.kind} {self.target}{where} for {self.lasts_s:.1f} s, size {self.size:.2f}"


def draw_plan(dice: Random) -> list[Fault]:
    """Four to twelve faults; what costs most comes most often, and what hits but once more often than what lasts."""
    plan = []
    for _ in range(dice.randint(4, 12)):
        kind = dice.choice([*KINDS, *AT_ONCE, *_FAVOURITES])
        target = dice.choice(KINDS[kind])
        lasts_s = 2.0 + dice.random() * (LONGEST_S - 2.0)
        points = CORE_POINTS if target == "core" else WORKER_POINTS if target in _WORKERS else ("",)
        point = dice.choice(points) if dice.random() < 0.7 and not kind.startswith("gpu") else ""
        plan.append(Fault(dice.random() * STORM_S, kind, target, lasts_s, 0.1 + 0.8 * dice.random(), point))
    return sorted(plan, key=lambda fault: fault.at_s)
