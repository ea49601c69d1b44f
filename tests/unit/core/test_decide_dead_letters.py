"""What a dead letter decides: it brings back what nobody has begun, blames nobody and changes nothing else."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from core.domain import commands as c
from core.domain.decide import convicted, may_dispatch
from core.domain.events import Failure, ImageAttemptFailed
from core.domain.state import Phase
from tests.core_events import dead_lettered
from tests.unit.core.journey import Journey, begun


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
    assert (image.ended_attempts, image.solo_starts, image.refusals, image.suspect) == ((), 0, 0, False)
    assert not convicted(image)
