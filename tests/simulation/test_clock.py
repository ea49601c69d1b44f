"""The clock on the wall steps by an hour, core is away or stands still: nothing expires that should not, and no stream
of events goes back in time.

The checker knows how long core has really run, and takes an expiry before its time for a violation.
"""

import pytest

from tests.simulation.faults import Fault
from tests.simulation.planted import planted
from tests.simulation.planted_core import (
    deadlines_follow_the_clock_on_the_wall,
    outages_count_against_the_time_to_live,
    times_follow_the_clock_on_the_wall,
)
from tests.simulation.schedule import silence, simulate

FORWARD, BACK = 0.9, 0.1
LONG_S = 400.0  # core is away for half of it, which is longer than anything may live
WAITING = Fault(0.0, "unreachable", "jobs", 45.0, 0.5)  # so that there is something to expire
STEPS = (
    WAITING,
    *(Fault(at_s, "clock_step", "wall", 2.0, FORWARD) for at_s in (8.0, 36.0)),
    *(Fault(at_s, "clock_step", "wall", 2.0, BACK) for at_s in (20.0, 28.0)),
)
AWAY = (WAITING, Fault(24.0, "crash_core", "core", LONG_S, 0.5))
STOPPED = (*STEPS, Fault(24.0, "stall_core", "core", LONG_S, 0.5))
SEEDS = tuple(f"clock-{number}" for number in range(30))


@pytest.mark.parametrize("plan", [STEPS, AWAY, STOPPED], ids=["steps", "away", "steps and stopped"])
def test_nothing_expires_before_its_time(plan: tuple[Fault, ...]) -> None:
    with silence():
        for seed in SEEDS[:6]:
            outcome = simulate(seed, plan)
            assert outcome.good, (seed, outcome.violations, outcome.stuck)


@pytest.mark.parametrize(
    ("bug", "plan"),
    [
        (deadlines_follow_the_clock_on_the_wall, STEPS),
        (outages_count_against_the_time_to_live, AWAY),
        (times_follow_the_clock_on_the_wall, STEPS),
    ],
)
def test_deadlines_on_another_clock_are_found_out(bug: object, plan: tuple[Fault, ...]) -> None:
    with silence(), planted(bug.__name__):  # type: ignore[attr-defined]
        assert any(not simulate(seed, plan).good for seed in SEEDS)
