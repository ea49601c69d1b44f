"""Which attempts convict an image and which do not; no report counts twice, and none is dispatched again too soon."""

from core.domain import commands as c
from core.domain.decide import convicted, may_dispatch, runs_solo
from core.domain.events import Failure
from core.domain.state import Ending, Phase
from tests.unit.core.journey import begun, running


def test_a_report_that_overtakes_the_record_of_its_dispatch_uses_up_the_number() -> None:
    """A worker that has answered a dispatch throws away what comes under the same number."""
    journey = begun()
    journey.start("att_1", dispatch=1)
    journey.failed("att_1", Failure.DRAINED, dispatch=1)
    journey.dispatch()
    assert journey.image().dispatches == 2
    journey.start("att_2", dispatch=2**31)  # nobody sent that
    assert journey.image().dispatches == 3


def test_a_refusal_that_overtakes_the_record_of_its_dispatch_is_heard() -> None:
    """A worker that refuses a job reports no start; ignored, the image would wait for its recheck, out with nobody."""
    journey = begun()
    assert journey.failed("att_1", Failure.UNSUPPORTED, dispatch=1)
    assert (journey.image().phase, journey.image().refusals) == (Phase.PENDING, 1)
    assert journey.failed("att_1", Failure.UNSUPPORTED, dispatch=1) == ()
    assert journey.do(c.Dispatch(index=0, dispatch=1, recheck_after_ms=100)) == (), "it has been answered"
    journey.dispatch()
    assert journey.image().dispatches == 2


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
        assert runs_solo(journey.image(), journey.running_ms)
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


def test_a_dispatch_that_failed_before_it_was_recorded_is_not_out_any_more() -> None:
    journey = begun()
    journey.start("att_1", dispatch=1)
    journey.failed("att_1")
    assert journey.do(c.Dispatch(index=0, dispatch=1, recheck_after_ms=1)) == ()
    assert journey.image(0).phase is Phase.PENDING
    assert journey.dispatch()
