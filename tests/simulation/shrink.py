"""Makes a failing schedule smaller: faults are dropped one at a time, as long as it still fails."""

from collections.abc import Callable, Sequence

from tests.simulation.faults import Fault
from tests.simulation.schedule import Outcome

Run = Callable[[str, Sequence[Fault]], Outcome]


def shrink(failing: Outcome, run: Run) -> Outcome:
    """The smallest failing schedule that dropping single faults leads to."""
    smallest, place = failing, 0
    while place < len(smallest.plan):
        fewer = [*smallest.plan[:place], *smallest.plan[place + 1 :]]
        outcome = run(failing.seed, fewer)
        if outcome.good:
            place += 1
        else:
            smallest = outcome
    return smallest
