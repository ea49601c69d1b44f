"""The ledger's rules, one by one."""

import pytest

from worker.metrics import Metrics
from worker.time_ledger import GAPS, SETTLE_S, Cause, TimeLedger


def spent(ledger: TimeLedger) -> dict[str, float]:
    return {cause.value: seconds for cause, seconds in ledger.seconds().items() if seconds}


def test_intervals_count_under_their_cause() -> None:
    ledger = TimeLedger(100.0)
    ledger.spend(Cause.RENDERING, 100.0, 103.0)
    ledger.spend(Cause.DECODING, 103.0, 103.5)
    ledger.spend(Cause.RENDERING, 104.0, 105.0)
    assert spent(ledger) == {"rendering": 4.0, "decoding": 0.5}
    assert ledger.unattributed_s(105.0) == 0.5
    assert ledger.overlapping_s == 0.0


@pytest.mark.parametrize(
    ("existed_since_s", "expected"),
    [
        (None, {"no_work": 10.0}),
        (13.0, {"no_work": 3.0, "work_not_here": 7.0}),
        (2.0, {"work_not_here": 10.0}),
        (20.0, {"no_work": 10.0}),
        (21.0, {"no_work": 10.0}),
    ],
)
def test_idle_time_is_split_where_the_work_came_into_being(
    existed_since_s: float | None, expected: dict[str, float]
) -> None:
    ledger = TimeLedger(0.0)
    ledger.spend(Cause.RENDERING, 0.0, 10.0)
    ledger.idle_began(10.0)
    assert ledger.open_idle_s(20.0) == 10.0
    ledger.idle_ended(20.0, existed_since_s=existed_since_s)
    assert spent(ledger) == {"rendering": 10.0, **expected}
    assert ledger.open_idle_s(20.0) == 0.0
    assert ledger.unattributed_s(20.0) == 0.0


def test_an_idle_time_that_began_twice_began_once() -> None:
    ledger = TimeLedger(0.0)
    ledger.idle_began(1.0)
    ledger.idle_began(2.0)
    ledger.idle_ended(4.0, existed_since_s=None)
    ledger.idle_ended(5.0, existed_since_s=None)
    assert spent(ledger) == {"no_work": 3.0}


def test_long_idle_time_is_settled_as_no_work_and_stays_so() -> None:
    ledger = TimeLedger(0.0)
    ledger.idle_began(0.0)
    ledger.settle(SETTLE_S)
    assert spent(ledger) == {}
    ledger.settle(SETTLE_S + 50.0)
    assert spent(ledger) == {"no_work": 50.0}
    ledger.settle(SETTLE_S + 50.0)
    assert ledger.open_idle_s(SETTLE_S + 50.0) == SETTLE_S
    ledger.settle(SETTLE_S + 60.0)
    assert spent(ledger) == {"no_work": 60.0}
    ledger.idle_ended(SETTLE_S + 60.0, existed_since_s=10.0)
    assert spent(ledger) == {"no_work": 60.0, "work_not_here": SETTLE_S}
    assert ledger.overlapping_s == 0.0


def test_an_image_that_is_here_and_cannot_be_announced_is_no_absence_of_work() -> None:
    ledger = TimeLedger(0.0)
    ledger.idle_began(0.0)
    ledger.settle(SETTLE_S + 10.0, existed_since_s=4.0)
    assert spent(ledger) == {"no_work": 4.0, "work_not_here": 6.0}
    ledger.settle(SETTLE_S + 12.0, existed_since_s=4.0)
    ledger.settle(SETTLE_S + 15.0)  # it is no longer wanted
    assert spent(ledger) == {"no_work": 7.0, "work_not_here": 8.0}


def test_idle_time_in_which_nothing_was_received_is_backpressure_as_it_goes() -> None:
    ledger = TimeLedger(0.0)
    ledger.held_back(0.0, 1.0)  # at work
    ledger.spend(Cause.RENDERING, 0.0, 2.0)
    ledger.idle_began(2.0)
    ledger.held_back(1.0, 3.0)
    ledger.held_back(3.0, 5.0)
    assert spent(ledger) == {"rendering": 2.0, "backpressure": 3.0}
    ledger.held_back(6.0, 8.0)
    ledger.idle_ended(9.0, existed_since_s=0.0)
    assert spent(ledger) == {"rendering": 2.0, "backpressure": 5.0, "no_work": 1.0, "work_not_here": 1.0}
    assert (ledger.overlapping_s, ledger.unattributed_s(9.0)) == (0.0, 0.0)


def test_what_is_told_twice_counts_once_under_its_first_cause() -> None:
    ledger = TimeLedger(0.0)
    ledger.spend(Cause.RENDERING, 0.0, 4.0)
    ledger.spend(Cause.BACKPRESSURE, 3.0, 6.0)
    ledger.spend(Cause.LOADING, 1.0, 2.0)
    assert spent(ledger) == {"rendering": 4.0, "backpressure": 2.0}
    assert ledger.overlapping_s == 2.0


def test_what_is_told_late_fills_the_gap_it_left() -> None:
    ledger = TimeLedger(0.0)
    ledger.spend(Cause.RENDERING, 0.0, 1.0)
    ledger.spend(Cause.RENDERING, 5.0, 6.0)
    ledger.spend(Cause.DECODING, 2.0, 3.0)
    ledger.spend(Cause.LOADING, 0.5, 5.5)
    assert spent(ledger) == {"rendering": 2.0, "decoding": 1.0, "loading": 3.0}
    assert ledger.overlapping_s == 2.0
    assert ledger.unattributed_s(6.0) == 0.0


def test_what_happened_inside_an_idle_time_is_not_idle() -> None:
    ledger = TimeLedger(0.0)
    ledger.idle_began(0.0)
    ledger.spend(Cause.LOADING, 2.0, 5.0)
    assert ledger.open_idle_s(6.0) == 3.0
    ledger.idle_ended(6.0, existed_since_s=4.0)
    assert spent(ledger) == {"loading": 3.0, "no_work": 2.0, "work_not_here": 1.0}
    assert ledger.overlapping_s == 3.0


def test_nothing_counts_from_before_the_beginning_nor_backwards() -> None:
    ledger = TimeLedger(10.0)
    ledger.spend(Cause.RENDERING, 8.0, 11.0)
    ledger.spend(Cause.DECODING, 13.0, 12.0)
    assert spent(ledger) == {"rendering": 1.0}
    assert ledger.unattributed_s(11.0) == 0.0


def test_gaps_that_are_forgotten_stay_unattributed() -> None:
    ledger = TimeLedger(0.0)
    for number in range(GAPS + 10):
        ledger.spend(Cause.RENDERING, 2.0 * number + 1, 2.0 * number + 2)
    now_s = 2.0 * (GAPS + 10)
    ledger.spend(Cause.DECODING, 0.0, now_s)
    assert spent(ledger) == {"rendering": GAPS + 10.0, "decoding": float(GAPS)}
    assert ledger.unattributed_s(now_s) == 10.0


def test_metrics_show_the_ledger_as_it_is() -> None:
    metrics, ledger, now_s = Metrics(), TimeLedger(0.0), 0.0
    metrics.watch_ledger(ledger, lambda: now_s)
    ledger.spend(Cause.RENDERING, 0.0, 2.0)
    ledger.idle_began(3.0)

    def shown(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"darkroom_worker_gpu_{name}", labels)

    now_s = 4.0
    assert shown("seconds_total", cause="rendering") == 2.0
    assert shown("seconds_total", cause="no_work") == 0.0
    assert (shown("open_idle_seconds"), shown("unattributed_seconds")) == (1.0, 1.0)
    now_s = 3.0 + SETTLE_S + 10.0
    assert shown("seconds_total", cause="no_work") == 0.0  # who looks decides nothing
    ledger.settle(now_s)
    assert shown("seconds_total", cause="no_work") == 10.0
    assert (shown("open_idle_seconds"), shown("overlapping_seconds")) == (SETTLE_S, 0.0)
