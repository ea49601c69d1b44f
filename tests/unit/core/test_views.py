"""What clients and the projection see of a state."""

import pytest

from core.api.views import view
from core.domain import commands as c
from core.domain.events import Failure, Prompts
from core.domain.projection import project, status_of
from core.domain.state import image_seed
from core.runtime.worker_reports import LiveProgress
from schema import pb
from tests.unit.core.journey import Journey

S = pb.GenerationStatus
I = pb.ImageStatus  # noqa: E741


def statuses(journey: Journey) -> tuple[int, list[int]]:
    rows = project(journey.open)
    return rows.generation.status, [image.status for image in rows.images]


def test_the_status_is_the_highest_reached() -> None:
    journey = Journey(n=2)
    journey.request()
    assert statuses(journey) == (S.QUEUED, [I.QUEUED, I.QUEUED])
    journey.dispatch()
    assert statuses(journey) == (S.QUEUED, [I.QUEUED, I.QUEUED])
    journey.start("att_1")
    assert statuses(journey) == (S.RUNNING, [I.RUNNING, I.QUEUED])
    journey.failed("att_1")
    assert statuses(journey) == (S.RUNNING, [I.RUNNING, I.QUEUED]), "sent back, but it does not look so"
    journey.dispatch()
    journey.rendered("att_2")
    assert statuses(journey) == (S.RUNNING, [I.RUNNING, I.QUEUED]), "decided, but not yet there for the client"
    journey.published("att_2")
    assert statuses(journey) == (S.RUNNING, [I.PUBLISHED, I.QUEUED])
    journey.do(c.Cancel())
    assert statuses(journey) == (S.CANCELLED, [I.PUBLISHED, I.DROPPED])


def test_a_failed_image_shows_why() -> None:
    journey = Journey(n=1)
    journey.request()
    for number in range(3):
        journey.dispatch()
        journey.failed(f"att_{number}", Failure.UNSUPPORTED)
    shown = view(project(journey.open), None)
    assert int(shown.status) == S.FAILED
    assert [(int(image.status), int(image.failure)) for image in shown.images] == [
        (I.FAILED, pb.AttemptFailure.UNSUPPORTED)
    ]
    assert "it failed" in shown.failure_detail


def test_a_picture_is_shown_only_once_it_is_published() -> None:
    journey = Journey(n=1)
    journey.request()
    journey.dispatch()
    journey.rendered("att_1")
    assert project(journey.open).images[0].sha256 == b""
    journey.published("att_1")
    shown = view(project(journey.open), Prompts(prompt="a prompt"))
    assert (shown.images[0].public_key, shown.images[0].size_bytes) == ("token/key.png", 1)
    assert shown.prompts.prompt == "a prompt"
    assert shown.started_at_ms == shown.requested_at_ms
    assert not shown.erased


def test_progress_and_place_are_those_of_the_running_core() -> None:
    journey = Journey(n=2)
    journey.request()
    shown = view(project(journey.open), None, LiveProgress(backlog_position=3, steps=(5,), revision=9))
    assert (shown.backlog_position, shown.progress_revision) == (3, 9)
    assert [image.progress_step for image in shown.images] == [5, 0]


@pytest.mark.parametrize(("seed", "index", "expected"), [(7, 0, 7), (7, 2, 9), (2**32 - 1, 1, 0)])
def test_each_image_has_a_seed_of_its_own(seed: int, index: int, expected: int) -> None:
    assert image_seed(seed, index) == expected


def test_every_ending_has_a_public_status() -> None:
    journey = Journey(n=1, ttl_s=1)
    journey.request()
    journey.running_ms = 1_000
    journey.do(c.Expire())
    assert status_of(journey.open) == S.EXPIRED
    journey.do(c.Erase())
    assert project(journey.open).generation.erased == 1
    assert status_of(journey.open) == S.EXPIRED
