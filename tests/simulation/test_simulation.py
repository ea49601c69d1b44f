"""A seed is one run exactly, in this process and in others. The schedules themselves: `test_schedules_*.py`."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.simulation.schedule import silence, simulate


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with silence():
        yield


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
