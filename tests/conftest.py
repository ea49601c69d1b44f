"""What all tests share: tests of one module that share a stack stay in one process when pytest runs in several."""

from pathlib import Path

import pytest

WITH_STACKS = ("e2e", "crash")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `--dist loadgroup`: otherwise each process would start every module's stack for a test or two."""
    for item in items:
        if Path(item.path).parent.name in WITH_STACKS:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
