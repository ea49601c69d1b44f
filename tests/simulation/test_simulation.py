"""Schedules of faults from a fixed base: nothing accepted is lost, stuck or double; and a seed is one run exactly."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.simulation.coverage import Tally
from tests.simulation.schedule import Outcome, silence, simulate

BASE = "ci"
SECONDS = 30.0
AT_LEAST = 10
AT_MOST = 2_000


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with silence():
        yield


def explain(outcome: Outcome) -> str:
    said = [*outcome.violations, *outcome.stuck, *map(str, outcome.plan)]
    return f"python -m tests.simulation --replay {outcome.seed}\n" + "\n".join(said)


@pytest.mark.slow
def test_nothing_accepted_is_lost_stuck_or_double_whatever_dies() -> None:
    tally = Tally()
    ends = time.monotonic() + SECONDS
    while tally.schedules < AT_MOST and (tally.schedules < AT_LEAST or time.monotonic() < ends):
        outcome = simulate(f"{BASE}-{tally.schedules}")
        assert outcome.good, explain(outcome)
        tally.add(outcome)
    assert tally.accepted >= 6 * tally.schedules
    assert tally.transitions["generation.succeeded running"] > tally.accepted / 2


def test_a_seed_is_one_run_to_the_last_event() -> None:
    first, second = simulate("same-1"), simulate("same-1")
    assert first.digest == second.digest
    assert first.events == second.events > 20
    assert simulate("same-2").digest != first.digest


def test_a_seed_is_the_same_run_in_another_process_that_hashes_otherwise() -> None:
    program = (
        "from tests.simulation.schedule import silence, simulate\n"
        "with silence():\n"
        "    print([simulate(f'same-{n}').digest for n in range(4)])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {f"{[simulate(f'same-{number}').digest for number in range(4)]}\n"}
