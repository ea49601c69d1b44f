"""Ten seconds of starvation or back-pressure, planted under virtual time: the ledger shows them under their cause."""

import pytest

from tests.property.session_rig import Arrival, Day, Outage, seconds
from worker.time_ledger import SETTLE_S

PLANTED_S = 10.0
NEAR = 0.02
FIRST = Arrival(at_s=1.0, steps=4)


@pytest.mark.parametrize(
    ("day", "cause"),
    [
        (Day(arrivals=[FIRST, Arrival(at_s=1.225 + PLANTED_S, steps=4)]), "no_work"),
        (
            Day(
                arrivals=[FIRST, Arrival(at_s=1.225, steps=4)],
                outages=[Outage(what="jobs", at_s=1.2, for_s=PLANTED_S)],
            ),
            "work_not_here",
        ),
        (
            Day(
                arrivals=[Arrival(at_s=1.0, steps=4)] * 12,
                outages=[Outage(what="store", at_s=0.5, for_s=PLANTED_S + 1.0)],
                line_images=1,
            ),
            "backpressure",
        ),
    ],
    ids=["no work", "work not here", "backpressure"],
)
def test_ten_planted_seconds_show_under_their_own_cause(day: Day, cause: str) -> None:
    spent, longest_s = seconds(day)
    assert longest_s == pytest.approx(PLANTED_S, rel=0.15)
    assert spent[cause] == pytest.approx(longest_s, rel=NEAR), spent
    waits = {"no_work", "work_not_here", "backpressure"} - {cause}
    assert all(spent[each] <= NEAR * PLANTED_S for each in waits), spent


def test_an_image_that_waits_to_be_announced_is_no_absence_of_work() -> None:
    """For a minute: the jobs queue says all the while that it holds nothing, and half a minute of that settles."""
    for_s = 2 * SETTLE_S
    outage = Outage(what="replies", at_s=1.2, for_s=for_s)
    spent, longest_s = seconds(Day(arrivals=[FIRST, Arrival(at_s=1.225, steps=4)], outages=[outage]))
    assert longest_s >= for_s
    assert spent["work_not_here"] == pytest.approx(longest_s, rel=NEAR), spent
