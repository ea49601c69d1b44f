"""The order in which test files run: two that mostly wait for processes, then one that computes, and so on, the slowest
first. This keeps the cores busy without so much load that deadlines pass, and no long file starts last.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

WAIT = ("crash", "e2e", "docs", "integration")
"""Folders whose tests mostly wait for processes of their own, the slowest first."""

COMPUTE = ("simulation", "conformance", "property", "unit", "fuzz", "storage")
"""Folders whose tests keep a core busy, the slowest first; files beside the folders come last."""

LONGEST = ("test_schedules_fixed.py", "test_schedules_random.py", "test_planted.py")
"""The slowest of the files that compute; they start before all others of these."""
# The tests start hundreds of processes; with this variable set, each would compile our modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# On a busy machine a slow example is no failure; benchmarks have the limits on time.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--repeat`."""
    parser.addoption("--repeat", type=int, default=1, help="run each test so many times, on the same stack")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs each test `--repeat` times, one after the other."""
    times = metafunc.config.getoption("--repeat")
    if times > 1:
        metafunc.fixturenames.append("repetition")
        metafunc.parametrize("repetition", range(times))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts tests by file in the order of `in_turn`; within a file they keep their order."""
    root = Path(__file__).parent
    inside = [item.path.relative_to(root) for item in items if item.path.is_relative_to(root)]
    place = {path: number for number, path in enumerate(in_turn(list(dict.fromkeys(inside))))}
    items.sort(key=lambda item: place.get(item.path.relative_to(root), 0) if item.path.is_relative_to(root) else 0)


def in_turn(paths: Sequence[Path]) -> list[Path]:
    """Test files below this folder in the order in which they run."""

    def rank(path: Path) -> tuple[bool, int]:
        folders = (*WAIT, *COMPUTE)
        return path.name not in LONGEST, folders.index(path.parts[0]) if path.parts[0] in folders else len(folders)

    waiting = sorted((path for path in paths if path.parts[0] in WAIT), key=rank)
    computing = sorted((path for path in paths if path.parts[0] not in WAIT), key=rank)
    ordered = []
    while waiting or computing:
        ordered += waiting[:2] + computing[:1]
        del waiting[:2], computing[:1]
    return ordered
