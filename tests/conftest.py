"""The order in which test files run. Files are handed to three processes one by one, so what takes longest goes first:
started last, one long file would keep one process at work and the others waiting.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ORDER = ("crash", "e2e", "docs", "simulation", "conformance", "integration", "fuzz", "property", "storage", "unit")
"""Folders, the slowest first."""
# Hundreds of processes are started: where this is set, each would compile our modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# An example that takes long on a busy machine is no failure: what may take how long is for benchmarks to say.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--repeat`."""
    parser.addoption("--repeat", type=int, default=1, help="run each test so many times, on the same stack")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """As many of each as `--repeat` says, one after the other."""
    times = metafunc.config.getoption("--repeat")
    if times > 1:
        metafunc.fixturenames.append("repetition")
        metafunc.parametrize("repetition", range(times))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """By folder; within a folder as collected."""
    root = Path(__file__).parent
    items.sort(key=lambda item: rank(item.path.relative_to(root).parts if item.path.is_relative_to(root) else ()))


def rank(parts: Sequence[str]) -> int:
    """Of a test file's path below this folder."""
    return ORDER.index(parts[0]) if parts and parts[0] in ORDER else len(ORDER)
