"""Many schedules in a row, as a test: each must hold, and together they must have met all there is to meet.

The tests that call this stand in files of their own, so that two processes of pytest share them.
"""

from tests.simulation.coverage import Tally
from tests.simulation.schedule import Outcome, silence, simulate

CHUNK = 530
"""Two of them make the thousand, and meet each fault a hundred times."""


def explain(outcome: Outcome) -> str:
    said = [*outcome.violations, *outcome.stuck, *map(str, outcome.plan)]
    return f"python -m tests.simulation --replay {outcome.seed}\n" + "\n".join(said)


def hold(base: str, enough: int) -> Tally:
    """The schedules BASE-0, BASE-1, … of one chunk, which must meet each fault `enough` times.

    Raises AssertionError with how to see the failing one again.
    """
    tally = Tally()
    with silence():
        for number in range(CHUNK):
            outcome = simulate(f"{base}-{number}")
            assert outcome.good, explain(outcome)
            tally.add(outcome)
    assert tally.accepted >= 6 * CHUNK
    assert tally.transitions["generation.succeeded running"] > tally.accepted / 2
    assert tally.rare(enough) == [], f"schedules {base}-0 to {base}-{CHUNK - 1}"
    return tally
