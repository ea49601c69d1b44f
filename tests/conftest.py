"""What all tests share: tests of one module that share a stack stay in one process when pytest runs in several."""

from collections.abc import Generator
from pathlib import Path

import pytest

WITH_STACKS = ("e2e", "crash")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """For `--dist loadgroup`, before xdist reads the marks: otherwise each process would start every module's stack."""
    for item in items:
        if Path(item.path).parent.name in WITH_STACKS:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    return (yield)
