"""A real core whose disk fails it at every tenth write, and between syncs; the long form is `just storage-faults`."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.eventually import until
from tests.storage import strace, sweep
from tests.storage.core_alone import CoreAlone
from tests.storage.disk import Disk, small_disk

pytestmark = pytest.mark.timeout(240)


def test_rows_9_10_16_20_22_every_tenth_write_and_third_sync(tmp_path: Path) -> None:
    """SIGKILL and EIO end core, and its next life knows all it told; without room it refuses and goes on by itself."""
    seen = sweep.run(tmp_path, every=10)
    kills = [seen.faults[f"{calls}:signal=SIGKILL"] for calls in (strace.WRITES, strace.SYNCS)]
    errors = [seen.faults[f"{calls}:error=EIO"] for calls in (strace.WRITES, strace.SYNCS)]
    assert min(*kills, *errors) >= 2, seen
    assert seen.faults["pwrite64:ENOSPC"] >= 20, seen
    assert seen.faults["pwrite64:ENOSPC from there on"] >= 3, seen
    assert seen.in_doubt >= 5, seen
    assert seen.refused >= 10, seen
    assert seen.accepted >= 30, seen


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path) as disk:
        yield disk


def test_rows_20_21_a_disk_that_is_full_for_appends_and_for_checkpoints(disk: Disk) -> None:
    """Refused and unready while there is no room; ready again by itself, without a call, once there is."""
    core = CoreAlone(disk.folder)
    core.start()
    try:
        assert asyncio.run(core.load(3))
        disk.fill()
        until(lambda: refused(core), 30, what="core refuses")
        until(core.log_trouble, what="core says that it is not ready")
        core.check()
        disk.free()
        until(lambda: not core.log_trouble(), what="core is ready again by itself")
        assert asyncio.run(core.load(3))
        assert len(core.told.accepted) >= 6
        core.check()
        core.process.stop()
        core.check()
    finally:
        core.process.kill()


def refused(core: CoreAlone) -> bool:
    """Full for a submission; a few pages may still be free before."""
    before = len(core.told.refused)
    assert asyncio.run(core.load(2))
    return len(core.told.refused) == before + 2
