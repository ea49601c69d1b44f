"""Nothing accepted is lost, stuck or double, whatever dies: the same schedules every time."""

import pytest

from tests.simulation.many import hold


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_nothing_accepted_is_lost_stuck_or_double_whatever_dies() -> None:
    hold("ci", enough=60)
