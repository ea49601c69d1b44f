"""Every order of sending, starting, rendering, publishing, cancelling, expiring, crashing and repeating, in the small.

After each step: the log is one that may be, a restart finds what memory holds, there is one end at most, published
is only what was copied, and who asked for a cancel was told the truth. In the end: one end exactly.
"""

from itertools import permutations

import pytest

from core.domain import commands as c
from core.domain.decide import Now
from core.domain.shares import UsageByTenant, caps
from core.domain.state import Ending, Generation
from core.domain.transaction import Order, PendingTransaction
from tests.core_events import NOON_MS
from tests.simulation import planted_core
from tests.simulation.exhaustive import explore
from tests.simulation.planted import planted
from tests.unit.core.journey import Journey

NOW = Now(at_ms=NOON_MS, running_ms=10_000)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_order_of_two_images_one_crash_and_one_repeated_message() -> None:
    found = explore(2, 1, repeats=1)
    assert found.orders > 10**9
    assert found.ends.keys() == {"succeeded", "cancelled", "expired"}


def test_every_order_of_one_image_one_crash_and_one_failed_attempt() -> None:
    assert explore(1, 1, repeats=0, failures=1).orders > 1_000


@pytest.mark.parametrize(
    "bug",
    [
        planted_core.a_cancel_always_wins,
        planted_core.expiry_does_not_look,
        planted_core.the_last_picture_wins,
    ],
)
def test_a_planted_bug_is_in_some_order(bug: object) -> None:
    with planted(bug.__name__), pytest.raises(AssertionError):  # type: ignore[attr-defined]
        explore(1, 0, repeats=1)


def race(first: Generation, orders: tuple[c.Command, ...], apart: bool) -> tuple[Generation, bool]:
    """The state after the commands, in one transaction or each in its own, and whether the cancel was granted."""
    state, granted, pending = first, False, None
    for command in orders:
        if pending is None or apart:
            pending = PendingTransaction(now=NOW, usage=UsageByTenant(), caps=caps(10), before={first.id: state})
        result = pending.decide(Order(first.id, command))
        assert result.state is not None
        state = result.state
        if isinstance(command, c.Cancel):
            granted = result.refusal is None
            assert granted or not state.open or not state.undecided, "refused while it could still be granted"
    return state, granted


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("order", list(permutations(("cancel", "result", "expiry"))))
def test_row_45_cancel_result_and_expiry_in_every_order_end_it_once_and_the_loser_is_told_the_truth(
    order: tuple[str, ...], apart: bool
) -> None:
    journey = Journey(n=1, ttl_s=5)
    journey.request()
    journey.dispatch()
    journey.start("a")
    before = journey.open
    journey.rendered("a")
    winner = journey.image().rendered
    assert winner is not None
    result = c.RecordRendered(event=winner)
    commands: dict[str, c.Command] = {"cancel": c.Cancel(), "result": result, "expiry": c.Expire()}
    publish = c.RecordPublished(index=0, attempt_id="a", public_key="key")
    state, granted = race(before, (*(commands[each] for each in order), publish), apart)
    expected = {"cancel": Ending.CANCELLED, "result": Ending.SUCCEEDED, "expiry": Ending.EXPIRED}[order[0]]
    assert state.ending is expected, "who comes first wins"
    assert granted is (expected is Ending.CANCELLED)
    for late in (*commands.values(), publish):
        pending = PendingTransaction(now=NOW, usage=UsageByTenant(), caps=caps(10), before={state.id: state})
        assert not pending.decide(Order(state.id, late)).changed, "something came after the end"
