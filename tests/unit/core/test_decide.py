"""The rules, case by case: who wins, what is ignored, what convicts, what ends."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from core import commands as c
from core.decide import NotEnded, TooLate, UnknownGeneration, convicted, may_dispatch, runs_alone
from core.events import TERMINAL_TYPES, Failure, ImageAttemptFailed
from core.state import Ending, Phase
from tests.core_events import dead_lettered
from tests.unit.core.journey import Journey


def begun(n: int = 1, ttl_s: int = 0) -> Journey:
    journey = Journey(n=n, ttl_s=ttl_s)
    journey.request()
    return journey


def running(n: int = 1, ttl_s: int = 0) -> Journey:
    """Image 0 was dispatched and started as att_1."""
    journey = begun(n, ttl_s)
    journey.dispatch()
    journey.start("att_1")
    return journey


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


def test_a_report_that_overtakes_the_record_of_its_dispatch_uses_up_the_number() -> None:
    """A worker that has answered a dispatch throws away what comes under the same number."""
    journey = begun()
    journey.start("att_1", dispatch=1)
    journey.failed("att_1", Failure.DRAINED, dispatch=1)
    journey.dispatch()
    assert journey.image().dispatches == 2
    journey.start("att_2", dispatch=2**31)  # nobody sent that
    assert journey.image().dispatches == 3


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


def test_a_repeated_failure_report_does_not_count_again() -> None:
    journey = running()
    journey.failed("att_1", Failure.UNSUPPORTED)
    journey.dispatch()
    for _ in range(5):
        assert journey.failed("att_1", Failure.UNSUPPORTED, dispatch=1) == ()
    assert (journey.image().phase, journey.image().refusals) == (Phase.DISPATCHED, 1)


def test_a_repeated_report_of_a_drained_worker_does_not_absolve_again() -> None:
    journey = running()
    journey.failed("att_1")
    journey.dispatch()
    journey.start("att_2")
    assert journey.image().solo_starts == 1
    journey.failed("att_2", Failure.DRAINED)
    journey.dispatch()
    assert journey.failed("att_2", Failure.DRAINED, dispatch=2) == ()
    assert journey.image().solo_starts == 0


def test_a_start_that_comes_after_its_failure_is_ignored() -> None:
    journey = running()
    journey.failed("att_1")
    journey.dispatch()
    journey.failed("att_2")
    assert journey.image().solo_starts == 1
    assert journey.start("att_2") == ()
    journey.dispatch()
    assert journey.start("att_2") == ()
    assert journey.image().solo_starts == 1


def test_a_start_that_gave_a_picture_convicts_nobody() -> None:
    journey = running()
    journey.failed("att_1")
    for attempt in ("att_2", "att_3"):
        journey.dispatch()
        journey.start(attempt)
        journey.rendered(attempt)
        journey.lost(attempt)
    journey.dispatch()
    journey.start("att_4")
    assert not convicted(journey.image())


def test_the_third_start_alone_without_a_word_convicts_and_the_mates_go_on() -> None:
    journey = begun(n=2)
    for index in (0, 1):
        journey.dispatch(index)
        journey.start(f"att_{index}", index)
    journey.rendered("att_1", 1)
    for number in range(3):
        journey.running_ms += 200
        assert runs_alone(journey.image(), journey.running_ms)
        journey.dispatch()
        journey.start(f"solo_{number}")
        assert convicted(journey.image()) == (number == 2)
    assert journey.do(c.GiveUp(index=0)) == (), "the third may still be at work"
    journey.running_ms += 200
    assert not may_dispatch(journey.image(), journey.running_ms)
    assert journey.dispatch() == ()
    journey.do(c.GiveUp(index=0))
    assert journey.image().failure is Failure.WORKER_LOST
    assert journey.image(1).phase is Phase.RENDERED
    journey.published("att_1", 1)
    assert journey.open.ending is Ending.FAILED


def test_the_third_reported_failure_alone_convicts() -> None:
    journey = running()
    journey.failed("att_1")
    for number in range(3):
        journey.dispatch()
        journey.start(f"solo_{number}")
        journey.failed(f"solo_{number}")
    assert journey.image().failure is Failure.MODEL_ERROR
    assert journey.open.ending is Ending.FAILED


def test_a_failing_batch_convicts_nobody() -> None:
    journey = begun()
    for number in range(5):
        journey.dispatch()
        journey.start(f"att_{number}", solo=False)
        journey.failed(f"att_{number}", solo=False)
    assert journey.image().solo_starts == 0
    assert journey.image().phase is Phase.PENDING


def test_nothing_is_dispatched_again_before_its_recheck() -> None:
    journey = begun()
    journey.dispatch(after_ms=100)
    journey.running_ms = 99
    assert journey.dispatch() == ()
    journey.running_ms = 100
    assert len(journey.dispatch()) == 1
    assert not journey.image().suspect, "it was never started"


def test_a_start_moves_the_recheck() -> None:
    journey = begun()
    journey.dispatch(after_ms=100)
    journey.running_ms = 90
    journey.start("att_1", after_ms=100)
    journey.running_ms = 189
    assert journey.dispatch() == ()


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


def test_a_dispatch_that_failed_before_it_was_recorded_is_not_out_any_more() -> None:
    journey = begun()
    journey.start("att_1", dispatch=1)
    journey.failed("att_1")
    assert journey.do(c.Dispatch(index=0, dispatch=1, recheck_after_ms=1)) == ()
    assert journey.image(0).phase is Phase.PENDING
    assert journey.dispatch()


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


def out_as(phase: Phase, *, suspect: bool = False) -> Journey:
    """Image 0 in that phase; past the first its current dispatch is the second."""
    journey = begun(n=2)
    journey.dispatch()
    journey.failed("att_0", Failure.MODEL_ERROR if suspect else Failure.DRAINED)
    onwards: list[Callable[[], object]] = [
        journey.dispatch,
        lambda: journey.start("att_1"),
        lambda: journey.rendered("att_1"),
        lambda: journey.published("att_1"),
    ]
    for act in onwards[: phase - Phase.PENDING]:
        act()
    return journey


@pytest.mark.parametrize("suspect", [False, True])
def test_a_dead_letter_brings_back_what_nobody_has_begun_and_blames_nobody(suspect: bool) -> None:
    journey = out_as(Phase.DISPATCHED, suspect=suspect)
    before = journey.image()
    assert journey.dead_letter(dispatch=1) == (), "a copy of an older dispatch"
    assert journey.dead_letter(dispatch=3) == (), "a dispatch that is not recorded yet"
    [event] = journey.dead_letter()
    assert isinstance(event, ImageAttemptFailed)
    assert event == dead_lettered(dispatch=2, detail=event.detail)
    assert journey.image() == replace(before, phase=Phase.PENDING)
    assert journey.open == journey.refolded()
    assert may_dispatch(journey.image(), journey.running_ms)
    journey.dispatch()
    assert journey.image().dispatches == 3
    journey.start("att_1")
    assert journey.rendered("att_1"), "whoever begins it then is believed"


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in (Phase.DISPATCHED, Phase.FAILED)])
def test_a_dead_letter_changes_nothing_about_what_is_not_waiting_on_the_queue(phase: Phase) -> None:
    journey = out_as(phase)
    assert journey.image().phase is phase
    assert journey.dead_letter() == ()


def test_a_dead_letter_changes_nothing_once_all_is_over() -> None:
    journey = out_as(Phase.DISPATCHED)
    journey.do(c.Cancel())
    assert journey.dead_letter() == ()
    failed = begun()
    for attempt in ("r1", "r2", "r3"):
        failed.dispatch()
        failed.failed(attempt, Failure.UNSUPPORTED)
    assert failed.image().phase is Phase.FAILED
    assert failed.dead_letter() == ()


def test_dead_letters_of_one_image_count_however_many_they_are_and_convict_nobody() -> None:
    journey = begun()
    for _ in range(20):
        journey.dispatch()
        assert journey.dead_letter()
        assert journey.dead_letter() == (), "the same letter again"
    image = journey.image()
    assert (image.over, image.solo_starts, image.refusals, image.suspect) == ((), 0, 0, False)
    assert not convicted(image)
