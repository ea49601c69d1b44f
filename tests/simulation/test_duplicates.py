"""Row 30: each message comes one to five times, shuffled, delayed, lost and purged; each image comes out once."""

import pytest

from tests.simulation.duplicates import flood


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_row_30_a_thousand_images_through_queues_at_their_worst() -> None:
    tally, published = flood(1_000, "row-30")
    assert not tally.bad, [(each.seed, each.violations, each.stuck) for each in tally.bad]
    assert published >= 1_000
    for fault in ("duplicate", "reorder", "delay", "loss", "purge"):
        assert tally.faults[fault] > 100, fault
