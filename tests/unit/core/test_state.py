"""Folding a stream into a state."""

from dataclasses import replace

import pytest

from core.domain import events as e
from core.domain.events import TERMINAL_TYPES, TYPES, Failure
from core.domain.state import REMEMBERED_ATTEMPTS, Phase, apply, begin, fold
from schema import pb
from tests.core_events import NOON_MS, attempt_failed, dispatched, requested, started


def test_a_stream_begins_with_a_request_and_has_only_one() -> None:
    with pytest.raises(ValueError, match="does not begin"):
        fold("gen_1", [(dispatched(), NOON_MS)])
    with pytest.raises(ValueError, match="requested once"):
        apply(begin("gen_1", requested()), requested(), NOON_MS)


def test_each_event_is_one_version() -> None:
    state = fold("gen_1", [(requested(), 1), (dispatched(), 2), (started(), 3)])
    assert (state.version, state.started_at_ms) == (3, 3)
    assert [image.phase for image in state.images] == [Phase.STARTED, Phase.PENDING]


def test_apply_changes_nothing_in_place() -> None:
    before = begin("gen_1", requested())
    copy = replace(before)
    apply(before, dispatched(), NOON_MS)
    assert before == copy


def test_what_is_remembered_of_attempts_is_bounded() -> None:
    state = begin("gen_1", requested())
    for number in range(50):
        state = apply(state, started(attempt_id=f"att_{number}"), NOON_MS)
        state = apply(state, attempt_failed(attempt_id=f"att_{number}"), NOON_MS)
    image = state.images[0]
    assert len(image.attempts) == len(image.ended_attempts) == REMEMBERED_ATTEMPTS
    assert image.attempt_id == "att_49"


def test_failures_have_the_numbers_of_the_protocol() -> None:
    for failure in Failure:
        name = "UNSPECIFIED" if failure is Failure.NONE else failure.name
        assert int(pb.AttemptFailure[name]) == failure


def test_terminal_types_are_event_types() -> None:
    assert set(TYPES.values()) > TERMINAL_TYPES
    ends = (e.GenerationSucceeded, e.GenerationFailed, e.GenerationCancelled, e.GenerationExpired)
    assert {TYPES[end] for end in ends} == TERMINAL_TYPES
