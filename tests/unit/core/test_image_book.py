"""The dispatcher's book alone, without a loop: which images wait, are being sent, are out, and come up again."""

from dataclasses import dataclass, field

from core.dispatch.image_book import ImageBook, Job
from core.dispatch.in_flight import QueueTarget
from core.domain.events import Event, GenerationCancelled
from core.domain.fair_queue import FairQueue
from core.domain.recheck import RecheckPolicy
from core.domain.state import Generation
from tests.core_events import dispatched, published, rendered, requested, spec, state_after

ROOM = QueueTarget(least=16, most=64)
RECHECK = RecheckPolicy(visibility_s=10.0, cap_s=900.0)
DUE_MS = 120_000
"""The recheck of `dispatched()`."""


@dataclass
class Rig:
    """`append` is what the writer does: the states change, then the book is called."""

    states: dict[str, Generation] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    now_ms: int = 0

    def __post_init__(self) -> None:
        self.book = ImageBook(
            self.states,
            FairQueue(),
            RECHECK,
            work_s=lambda _: 1.0,
            away=lambda model: model in self.away,
        )

    def append(self, generation_id: str, *events: Event) -> None:
        before = self.states.get(generation_id)
        after = state_after(generation_id, events)
        if after.open:
            self.states[generation_id] = after
        else:
            self.states.pop(generation_id, None)
        self.book.on_changes([(before, after)], self.now_ms)

    def choose(self) -> list[Job]:
        jobs = self.book.choose(50, ROOM, self.now_ms)
        self.book.sending(jobs)
        return jobs

    def counts(self) -> tuple[int, int, int]:
        counts = self.book.counts
        return counts["pending"], counts["queued"], counts["started"]


BEGUN = requested(spec=spec(n=1))


def test_an_image_waits_is_sent_and_is_out() -> None:
    rig = Rig()
    rig.append("g", BEGUN)
    assert rig.counts() == (1, 0, 0)
    [job] = rig.choose()
    assert (job.ref, job.solo) == (("g", 0), False)
    assert rig.book.is_sending(("g", 0))
    assert rig.choose() == [], "it is chosen once"
    rig.append("g", BEGUN, dispatched())
    rig.book.sent([job], rig.now_ms)
    assert rig.counts() == (0, 1, 0)
    assert not rig.book.any_sending
    assert rig.book.any_out


def test_what_the_queue_refuses_waits_again() -> None:
    rig = Rig()
    rig.append("g", BEGUN)
    rig.book.not_sent(rig.choose(), rig.now_ms)
    assert rig.counts() == (1, 0, 0)
    assert [job.ref for job in rig.choose()] == [("g", 0)]


def test_an_image_without_a_report_is_sent_again_at_its_recheck_and_not_before() -> None:
    rig = Rig()
    rig.append("g", BEGUN, dispatched())
    assert rig.book.next_due_ms == DUE_MS
    assert rig.book.overdue(50, DUE_MS - 1) == ([], [])
    jobs, convicts = rig.book.overdue(50, DUE_MS)
    assert ([job.ref for job in jobs], convicts) == ([("g", 0)], [])


def test_a_worker_that_holds_an_image_moves_its_recheck() -> None:
    rig = Rig()
    rig.append("g", BEGUN, dispatched())
    rig.book.held_by_worker(("g", 0), DUE_MS - 1)
    assert rig.book.overdue(50, DUE_MS) == ([], [])
    jobs, _ = rig.book.overdue(50, DUE_MS - 1 + RECHECK.after_report_ms())
    assert [job.ref for job in jobs] == [("g", 0)]


def test_images_of_a_model_that_no_worker_can_use_are_held_back_until_one_can() -> None:
    rig = Rig(away={"demo"})
    rig.append("g", BEGUN)
    assert rig.choose() == []
    rig.away.clear()
    rig.book.served("demo")
    assert [job.ref for job in rig.choose()] == [("g", 0)]


def test_what_ended_while_it_was_being_sent_counts_on_the_queue_until_a_worker_drops_it() -> None:
    rig = Rig()
    rig.append("g", BEGUN)
    jobs = rig.choose()
    rig.append("g", BEGUN, GenerationCancelled())
    rig.book.sent(jobs, rig.now_ms)
    assert rig.counts() == (0, 0, 0)
    assert rig.book.dropped(("g", 0))
    assert not rig.book.dropped(("g", 0)), "once"


def test_a_decided_image_is_forgotten() -> None:
    rig = Rig()
    rig.append("g", BEGUN, dispatched())
    rig.append("g", BEGUN, dispatched(), rendered(), published())
    assert rig.counts() == (0, 0, 0)
    assert rig.book.overdue(50, 10 * DUE_MS) == ([], [])
