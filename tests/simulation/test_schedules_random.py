"""Nothing accepted is lost, stuck or double, whatever dies: other schedules every time, from a seed that is printed."""

from random import SystemRandom

import pytest

from tests.simulation.many import hold


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_nothing_accepted_is_lost_stuck_or_double_in_schedules_never_seen_before() -> None:
    seed = SystemRandom().randrange(10**9)
    print(f"schedules {seed}-0 and on")  # shown when the test fails
    hold(str(seed), enough=40)
