"""The rules, case by case: who wins, what is ignored, what ends."""

import itertools
from collections.abc import Callable

import pytest

from core.domain import commands as c
from core.domain.decide import NotEnded, TooLate, UnknownGeneration
from core.domain.events import TERMINAL_TYPES, Failure
from core.domain.state import Ending, Phase
from tests.unit.core.journey import Journey, begun, running


def test_a_picture_goes_its_whole_way() -> None:
    journey = running()
    journey.rendered("att_1")
    journey.published("att_1")
    assert journey.types == [
        "generation.requested",
        "image.dispatched",
        "image.started",
        "image.rendered",
        "image.published",
        "generation.succeeded",
    ]
    assert journey.open.ending is Ending.SUCCEEDED
    assert journey.open == journey.refolded()


def test_a_request_is_accepted_once() -> None:
    journey = begun()
    assert journey.request() == ()


def test_nothing_can_be_done_to_what_was_never_requested() -> None:
    with pytest.raises(UnknownGeneration):
        Journey().do(c.Cancel())


def test_one_failed_image_fails_the_generation_and_the_others_stay_published() -> None:
    journey = begun(n=2)
    for index in (0, 1):
        journey.dispatch(index)
    journey.rendered("att_a", 1)
    journey.published("att_a", 1)
    for attempt in ("r1", "r2", "r3"):
        journey.failed(attempt, Failure.UNSUPPORTED)
        journey.dispatch()
    assert journey.open.ending is Ending.FAILED
    assert journey.open.detail == "1 of 2 images failed: it failed"
    assert journey.image(1).phase is Phase.PUBLISHED


def test_the_first_valid_picture_wins_whichever_attempt_it_came_from() -> None:
    journey = running()
    journey.running_ms = 100
    journey.dispatch()
    journey.start("att_2")
    assert len(journey.rendered("att_1")) == 1
    assert journey.rendered("att_2") == ()
    assert journey.failed("att_2") == ()
    assert journey.published("att_2") == ()
    assert len(journey.published("att_1")) == 2


def test_a_picture_may_come_before_its_start() -> None:
    journey = begun()
    journey.dispatch()
    journey.rendered("att_1")
    assert journey.start("att_1") == ()
    assert journey.open.started_at_ms > 0


def test_a_lost_object_revokes_the_decision_three_times_at_most() -> None:
    journey = begun()
    for attempt in ("att_1", "att_2"):
        journey.dispatch()
        journey.start(attempt)
        journey.rendered(attempt)
        journey.lost(attempt)
        assert journey.image().phase is Phase.PENDING
    journey.dispatch()
    journey.rendered("att_3")
    journey.lost("att_3")
    assert journey.image().failure is Failure.OBJECT_LOST
    assert journey.open.ending is Ending.FAILED


def test_a_repeated_report_of_a_lost_picture_does_not_decide_again() -> None:
    journey = running()
    journey.rendered("att_1")
    journey.lost("att_1")
    assert journey.rendered("att_1") == ()
    journey.dispatch()
    assert journey.rendered("att_1") == ()
    assert len(journey.rendered("att_2")) == 1


def test_cancel_wins_while_an_image_is_undecided_and_comes_too_late_afterwards() -> None:
    journey = running(n=2)
    journey.rendered("att_1")
    journey.dispatch(1)
    journey.do(c.Cancel())
    assert journey.open.ending is Ending.CANCELLED
    assert journey.do(c.Cancel()) == ()
    assert journey.published("att_1") == ()
    late = running()
    late.rendered("att_1")
    with pytest.raises(TooLate):
        late.do(c.Cancel())


def test_time_runs_out_only_for_what_has_one() -> None:
    journey = begun(ttl_s=1)
    journey.running_ms = 999
    assert journey.do(c.Expire()) == ()
    journey.running_ms = 1_000
    journey.do(c.Expire())
    assert journey.open.ending is Ending.EXPIRED
    endless = begun()
    endless.running_ms = 10**12
    assert endless.do(c.Expire()) == ()


def test_only_what_has_ended_can_be_erased() -> None:
    journey = begun()
    with pytest.raises(NotEnded):
        journey.do(c.Erase())
    journey.do(c.Cancel())
    journey.do(c.Erase())
    assert journey.open.erased
    assert journey.do(c.Erase()) == ()


def test_an_unknown_image_is_ignored() -> None:
    journey = running()
    assert journey.do(c.Dispatch(index=1, dispatch=1, recheck_after_ms=1)) == ()
    assert journey.do(c.GiveUp(index=9)) == ()


ENDERS: dict[str, Callable[[Journey], object]] = {
    "rendered": lambda journey: journey.rendered("att_1"),
    "published": lambda journey: journey.published("att_1"),
    "cancel": lambda journey: journey.do(c.Cancel()),
    "expire": lambda journey: journey.do(c.Expire()),
    "failed": lambda journey: journey.failed("att_1"),
    "lost": lambda journey: journey.lost("att_1"),
}


def test_whatever_comes_first_there_is_one_end() -> None:
    """All 720 orders of a result, its publication, a cancel, an expiry, a failure and a lost object."""
    for order in itertools.permutations(ENDERS):
        journey = running(ttl_s=1)
        journey.running_ms = 1_000
        for name in order:
            try:
                ENDERS[name](journey)
            except TooLate:
                assert not journey.open.undecided or not journey.open.open, order
        terminal = [name for name in journey.types if name in TERMINAL_TYPES]
        assert len(terminal) <= 1, order
        first = min(("cancel", "expire", "rendered"), key=order.index)
        if first != "rendered":
            assert journey.open.ending is (Ending.CANCELLED if first == "cancel" else Ending.EXPIRED), order
        assert journey.open == journey.refolded(), order
