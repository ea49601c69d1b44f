"""Whatever the ledger is told, in whatever order: no second counts twice, none is made up, no counter goes back."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.time_ledger import GAPS, SETTLE_S, Cause, TimeLedger

BEGAN_S = 1_000.0
TIMES = st.integers(min_value=-200, max_value=4_000).map(lambda quarters: BEGAN_S + quarters / 4)
"""Quarters of a second: sums of them are exact."""


@dataclass(frozen=True)
class Spent:
    cause: Cause
    began_s: float
    seconds: float


@dataclass(frozen=True)
class Idle:
    began_s: float
    seconds: float
    existed_since_s: float | None


@dataclass(frozen=True)
class Settle:
    pass


SPENT = st.builds(Spent, st.sampled_from(Cause), TIMES, st.integers(-8, 400).map(lambda n: n / 4))
IDLE = st.builds(Idle, TIMES, st.integers(0, 400).map(lambda n: n / 4), st.none() | TIMES)


@settings(max_examples=300, deadline=None)
@given(st.lists(SPENT | IDLE | st.builds(Settle), max_size=60))
def test_sums_stay_within_the_wall(told: list[Spent | Idle | Settle]) -> None:
    ledger, now_s = TimeLedger(BEGAN_S), BEGAN_S
    before = ledger.seconds()
    for each in told:
        match each:
            case Spent():
                now_s = max(now_s, each.began_s + each.seconds)
                ledger.spend(each.cause, each.began_s, each.began_s + each.seconds)
            case Idle():
                began_s = max(now_s, each.began_s)
                now_s = began_s + each.seconds
                ledger.idle_began(began_s)
                ledger.settle(now_s)
                assert ledger.open_idle_s(now_s) <= min(each.seconds, SETTLE_S)
                ledger.idle_ended(now_s, existed_since_s=each.existed_since_s)
            case Settle():
                ledger.settle(now_s)
        after = ledger.seconds()
        assert all(after[cause] >= before[cause] for cause in Cause)
        known_s = sum(after.values()) + ledger.open_idle_s(now_s)
        assert known_s <= now_s - BEGAN_S
        assert known_s + ledger.unattributed_s(now_s) == now_s - BEGAN_S
        before = after


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(Cause), st.integers(0, 40), st.integers(0, 40)), max_size=GAPS // 2))
def test_each_moment_belongs_to_the_cause_that_was_told_first(told: list[tuple[Cause, int, int]]) -> None:
    """Beside the plainest model there is: a table of seconds."""
    ledger, owners, doubled = TimeLedger(0.0), dict[int, Cause](), 0
    for cause, one, other in told:
        began, ended = min(one, other), max(one, other)
        ledger.spend(cause, float(began), float(ended))
        doubled += sum(second in owners for second in range(began, ended))
        for second in range(began, ended):
            owners.setdefault(second, cause)
    assert ledger.seconds() == {cause: sum(owner is cause for owner in owners.values()) for cause in Cause}
    assert ledger.overlapping_s == doubled
    assert ledger.unattributed_s(40.0) == 40 - len(owners)
