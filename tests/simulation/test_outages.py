"""Queue, store, or all of it out of reach for five minutes, from the start and in the run (faults.md 34)."""

import pytest

from tests.simulation.faults import Fault
from tests.simulation.schedule import silence, simulate

FIVE_MINUTES_S = 300.0
SCHEDULES = 3


@pytest.mark.parametrize("begins_s", [0.0, 5.0], ids=["from the start", "in the run"])
@pytest.mark.parametrize("what", ["jobs", "replies", "all"])
def test_34_five_minutes_without(what: str, begins_s: float) -> None:
    """All that was accepted ends well afterwards; what expires, does so by its own time to live."""
    with silence():
        for number in range(SCHEDULES):
            outcome = simulate(f"outage-{number}", [Fault(begins_s, "unreachable", what, FIVE_MINUTES_S, 0.5)])
            assert outcome.good, (outcome.seed, outcome.violations, outcome.stuck)
            assert outcome.accepted >= 6
