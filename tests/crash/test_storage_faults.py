"""A real core whose disk fails it at every tenth write, and between syncs; the long form is `just storage-faults`."""

from pathlib import Path

import pytest

from tests.storage import disk, strace, sweep

pytestmark = pytest.mark.timeout(400)


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


def test_rows_9_22_a_log_that_fails_while_it_is_begun_is_begun_again(tmp_path: Path) -> None:
    seen = sweep.Sweep()
    sweep.births(tmp_path, 30, seen)
    assert min(seen.faults["beginning:signal=SIGKILL"], seen.faults["beginning:error=EIO"]) >= 2, seen


@pytest.mark.parametrize("scenario", ["appends", "checkpoints", "starts"])
def test_rows_20_21_a_full_disk(tmp_path: Path, scenario: str) -> None:
    """Where there is no room for an append, for the database under the write-ahead log, and at a start."""
    disk.run(scenario, tmp_path)
