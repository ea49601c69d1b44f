"""Jobs that the queue itself has given up, for they were received too often: core hears of it (faults.md 33)."""

from collections.abc import Iterator

import pytest

from core.domain.events import Failure, ImageAttemptFailed, ImageDispatched
from tests.cloud import DEAD, JOBS
from tests.e2e import invariants
from tests.eventually import until
from tests.stack import Stack

PLACE = "core.before_dead_letter_delete"
VISIBILITY_S = 60
"""Long: without the dead letter an image would wait for twice as long."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # A reply that was handed to a core that is dead comes again soon.
    env = {"DARKROOM_CORE_DEAD_LETTERS_S": "0.5", "DARKROOM_CORE_REPLY_VISIBILITY_S": "2"}
    with Stack(tmp_path_factory.mktemp("dead"), visibility_s=VISIBILITY_S, env=env) as stack:
        yield stack
        invariants.check(stack)


@pytest.fixture
def given_up(stack: Stack) -> str:
    """A generation of two images, whose jobs are about to be received too often; no worker is there."""
    stack.workers[0].stop()
    made: str = stack.client().submit(n=2)["id"]
    until(lambda: stack.cloud.waiting(JOBS) == 2, 20, what="its jobs are on the queue")
    return made


def receive_too_often(stack: Stack, made: str) -> None:
    """As workers do that die before they begin: the queue moves the jobs away at the thirty-first time."""

    def taken_away() -> bool:
        stack.cloud.take(JOBS, hidden_s=0)
        return len(dead_letters(stack, made)) == 2

    until(taken_away, 30, what="core has heard of both dead letters", every_s=0)


def dead_letters(stack: Stack, made: str) -> list[tuple[int, int]]:
    """Image and dispatch of each one in the log."""
    events = [line.event for line in invariants.read_log(stack) if line.stream == made]
    return [
        (event.index, event.dispatch)
        for event in events
        if isinstance(event, ImageAttemptFailed) and event.failure is Failure.DEAD_LETTERED
    ]


def recorded(stack: Stack) -> float:
    """How many dead letters this life of core has counted as told in the log."""
    return stack.metrics(stack.core_admin).get('darkroom_core_dead_letters_total{outcome="recorded"}', 0)


def sent(stack: Stack, made: str) -> int:
    """How many times images of this generation were put on the queue."""
    return sum(line.stream == made and isinstance(line.event, ImageDispatched) for line in invariants.read_log(stack))


def test_what_nobody_has_begun_is_sent_again_at_once(stack: Stack, given_up: str) -> None:
    earlier, kept = recorded(stack), stack.cloud.waiting(DEAD)
    stack.cloud.put(DEAD, b"rubbish")
    receive_too_often(stack, given_up)
    assert sorted(dead_letters(stack, given_up)) == [(0, 1), (1, 1)]
    until(lambda: sent(stack, given_up) == 4, 20, what="both are sent again")
    stack.restart_worker()
    stack.client().succeeded([given_up], 30)
    told = stack.command("core", "history", given_up)
    assert told.count("dispatch 1: dead lettered (") == 2, told
    until(lambda: stack.cloud.waiting(DEAD) == kept + 1, 20, what="the letters are gone but for the rubbish")
    assert recorded(stack) - earlier == 2
    assert stack.readiness(stack.core_admin)[0] == 200
    invariants.check(stack)


def test_core_dies_between_the_events_and_the_deletion_of_the_letters(stack: Stack, given_up: str) -> None:
    stack.core.stop()
    stack.restart_core(DARKROOM_FAILPOINTS=f"{PLACE}=kill")
    kept = stack.cloud.waiting(DEAD)

    def dead() -> bool:
        stack.cloud.take(JOBS, hidden_s=0)
        return not stack.core.alive

    until(dead, 30, what="core dies", every_s=0)
    stack.core.died_by_kill()
    assert 1 <= len(dead_letters(stack, given_up)) <= 2
    stack.restart_core()
    stack.restart_worker()
    stack.client().succeeded([given_up], 30)
    until(lambda: stack.cloud.waiting(DEAD) == kept, 30, what="the letters are gone")
    told = dead_letters(stack, given_up)
    assert len(told) == len(set(told)), "a letter was recorded twice"
    invariants.check(stack)
