"""The simulator finds every planted bug, within a bounded number of schedules."""

import pytest

from tests.simulation import planted_core, planted_dispatch, planted_erasure, planted_models, planted_worker
from tests.simulation.kept import KEPT
from tests.simulation.planted import BUGS, planted
from tests.simulation.schedule import silence, simulate

HOMES = (planted_core, planted_dispatch, planted_erasure, planted_models, planted_worker)
AT_MOST = 200
KEPT_AT_MOST = 20


def schedules_until_found(bug: str, at_most: int = AT_MOST) -> int:
    """How many it took; 0: not found. Raises AssertionError for a bug that does not run as what it replaces."""
    with silence(), planted(bug):
        for number in range(1, at_most + 1):
            outcome = simulate(f"planted-{number}")
            if not outcome.good:
                said = " ".join([*outcome.violations, *outcome.stuck])
                assert "TypeError" not in said, f"{bug} does not fit where it is planted: {said[:500]}"
                assert "AttributeError" not in said, f"{bug} does not fit where it is planted: {said[:500]}"
                return number
    return 0


@pytest.mark.slow
@pytest.mark.timeout(400)  # up to 200 schedules, beside other tests
@pytest.mark.parametrize("bug", sorted(BUGS.keys() - KEPT.keys()))
def test_is_found(bug: str) -> None:
    assert schedules_until_found(bug), f"{bug} is not found in {AT_MOST} schedules"


@pytest.mark.parametrize("bug", sorted(KEPT))
def test_a_bug_that_was_mended_is_found_by_the_faults_that_found_it(bug: str) -> None:
    seeds = [f"kept-{number}" for number in range(KEPT_AT_MOST)]
    with silence():
        with planted(bug):
            found = next((seed for seed in seeds if not simulate(seed, KEPT[bug]).good), None)
        assert found, f"{bug} is not found in {KEPT_AT_MOST} schedules"
        assert simulate(found, KEPT[bug]).good


def test_without_a_bug_the_same_schedules_find_nothing() -> None:
    with silence():
        bad = [number for number in range(1, 6) if not simulate(f"planted-{number}").good]
    assert not bad


def test_there_are_many_and_they_leave_nothing_behind() -> None:
    assert len(BUGS) >= 30
    assert {put.__module__ for put in BUGS.values()} == {home.__name__ for home in HOMES}
    before = simulate_digest()
    for bug in BUGS:
        with planted(bug):
            pass
    assert simulate_digest() == before


def simulate_digest() -> str:
    with silence():
        return simulate("planted-1").digest
