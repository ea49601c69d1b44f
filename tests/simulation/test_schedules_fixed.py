"""Nothing accepted is lost, stuck or double, whatever dies: the same schedules every time."""

import pytest

from tests.simulation.many import hold


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_nothing_accepted_is_lost_stuck_or_double_whatever_dies() -> None:
    """What one chunk of chance may miss now and then, these go through: every transition."""
    assert hold("ci", enough=60).unseen() == []
