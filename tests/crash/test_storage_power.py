"""Power cuts: core's own writes and syncs, recorded, and the worst disks they may leave (faults.md 25)."""

from pathlib import Path

import pytest

from tests.storage import replays

pytestmark = pytest.mark.timeout(400)


def test_row_25_what_was_acknowledged_survives_200_power_cuts(tmp_path: Path) -> None:
    run = replays.record(tmp_path)
    assert len(run.told.accepted) == 2 * replays.CLIENTS * replays.SUBMISSIONS
    seen = replays.replay(run, tmp_path, times=200, seed=25)
    assert not seen.lost, seen.lost[:3]
    assert min(seen.modes.values()) >= 20, seen.modes


def test_row_25_the_same_cuts_lose_work_when_commits_are_not_synced(tmp_path: Path) -> None:
    """A model that finds nothing wrong with PRAGMA synchronous = NORMAL would prove nothing."""
    run = replays.record(tmp_path, synced=False)
    seen = replays.replay(run, tmp_path, times=40, seed=25)
    gone = [line for line in seen.lost if "acknowledged and not in the log" in line]
    assert gone, f"no loss in {seen.count} power cuts"
