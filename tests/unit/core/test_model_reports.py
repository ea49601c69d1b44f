"""What workers say of their models, and what a refusal means by it."""

from collections.abc import Sequence

import pytest

from core.domain.commands import Verdict
from core.domain.events import Failure
from core.runtime.model_reports import KEPT_S, SETTLE_S, ModelReports
from schema import fast, pb
from worker.holding.types import ModelState

OUT = (ModelState.BROKEN, ModelState.AWAY)


class Seen:
    """The workers heard of lately."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def ids(self) -> Sequence[str]:
        return self.names


class Book:
    """Reports, and a clock to turn."""

    def __init__(self, *, settled: bool = True) -> None:
        self.now_s = 100.0
        self.seen = Seen()
        self.reports = ModelReports(self.seen, now_ms=lambda: int(self.now_s * 1000))
        self.served: list[str] = []
        self.reports.listen(self.served.append)
        self.reports.begin()
        if settled:
            self.now_s += SETTLE_S

    def says(self, worker_id: str, **models: ModelState) -> None:
        if worker_id not in self.seen.names:
            self.seen.names.append(worker_id)
        reports = [
            fast.ModelReport(name=name, state=pb.ModelState(state), reason="a file is cut off" if state in OUT else "")
            for name, state in models.items()
        ]
        self.reports.report(worker_id, reports)

    def verdict(self, worker_id: str, model: str, failure: Failure = Failure.MODEL_BROKEN) -> Verdict:
        return self.reports.verdict(worker_id, model, failure)


def test_broken_on_every_worker_that_lists_it_is_final() -> None:
    book = Book()
    book.says("w1", good=ModelState.LOADED, bad=ModelState.BROKEN)
    assert book.verdict("w1", "bad") is Verdict.FINAL
    book.says("w2", good=ModelState.LOADED)
    assert book.verdict("w1", "bad") is Verdict.FINAL, "w2 has no part in it"
    book.says("w3", bad=ModelState.BROKEN)
    assert book.verdict("w1", "bad") is Verdict.FINAL


@pytest.mark.parametrize("state", [ModelState.LOADED, ModelState.LOADING, ModelState.UNLOADED, ModelState.AWAY])
def test_broken_on_one_of_two_counts_for_nothing(state: ModelState) -> None:
    book = Book()
    book.says("w1", bad=ModelState.BROKEN)
    book.says("w2", bad=state)
    assert book.verdict("w1", "bad") is Verdict.ELSEWHERE


def test_a_reply_tells_of_the_broken_model_before_the_next_report_does() -> None:
    book = Book()
    book.says("w1", bad=ModelState.LOADING)
    book.says("w2", bad=ModelState.LOADING)
    book.reports.refused("w2", "bad", Failure.MODEL_BROKEN, "a file is cut off")
    assert book.verdict("w1", "bad") is Verdict.FINAL


def test_nothing_is_judged_before_every_worker_could_report() -> None:
    book = Book(settled=False)
    book.says("w1", bad=ModelState.BROKEN)
    assert not book.reports.complete
    assert book.verdict("w1", "bad") is Verdict.ELSEWHERE
    book.now_s += SETTLE_S
    book.says("w1", bad=ModelState.BROKEN)
    assert book.verdict("w1", "bad") is Verdict.FINAL


def test_beside_a_worker_that_reports_nothing_refusals_count() -> None:
    book = Book()
    book.says("w1", bad=ModelState.BROKEN)
    book.seen.names.append("old")
    assert book.verdict("w1", "bad") is Verdict.COUNT
    assert book.reports.silent() == 1
    assert book.verdict("old", "bad", Failure.UNSUPPORTED) is Verdict.COUNT


def test_a_worker_that_says_nothing_any_more_is_forgotten() -> None:
    book = Book()
    book.says("w1", bad=ModelState.BROKEN)
    book.says("w2", bad=ModelState.LOADED)
    book.now_s += KEPT_S + 1
    book.seen.names.remove("w2")
    book.says("w1", bad=ModelState.BROKEN)
    assert book.verdict("w1", "bad") is Verdict.FINAL
    assert [(each.name, each.workers) for each in book.reports.statuses()] == [("bad", 1)]


def test_who_does_not_list_a_model_has_no_say_while_another_does() -> None:
    book = Book()
    book.says("w1", good=ModelState.LOADED)
    assert book.verdict("w1", "other", Failure.UNSUPPORTED) is Verdict.COUNT, "nobody lists it"
    book.says("w2", other=ModelState.UNLOADED)
    assert book.verdict("w1", "other", Failure.UNSUPPORTED) is Verdict.ELSEWHERE
    assert book.verdict("w2", "other", Failure.UNSUPPORTED) is Verdict.COUNT, "a size, say"


def test_images_stay_at_home_while_their_model_is_away_everywhere() -> None:
    book = Book()
    assert not book.reports.away("m")
    book.says("w1", m=ModelState.AWAY)
    assert book.reports.away("m")
    assert book.verdict("w1", "m", Failure.MODEL_AWAY) is Verdict.ELSEWHERE
    book.says("w2", m=ModelState.BROKEN)
    assert book.reports.away("m")
    book.says("w1", m=ModelState.BROKEN)
    assert not book.reports.away("m"), "broken: their refusals decide"
    book.says("w2", m=ModelState.AWAY)
    book.says("w1", m=ModelState.UNLOADED)
    assert not book.reports.away("m")


def test_it_is_told_when_a_model_can_be_used_again() -> None:
    book = Book()
    book.says("w1", m=ModelState.UNLOADED)
    book.says("w1", m=ModelState.LOADED)
    assert book.served == ["m"]
    book.says("w1", m=ModelState.AWAY)
    book.says("w1", m=ModelState.AWAY)
    assert book.served == ["m"]
    book.says("w1", m=ModelState.UNLOADED)
    assert book.served == ["m", "m"]


def test_statuses_say_what_is_where() -> None:
    book = Book()
    book.says("w1", m=ModelState.BROKEN, n=ModelState.LOADED)
    book.says("w2", m=ModelState.LOADED)
    book.says("w3", m=ModelState.LOADING)
    m, n = book.reports.statuses()
    assert (m.name, m.workers, m.loaded, m.loading, m.broken, m.away) == ("m", 3, 1, 1, 1, 0)
    assert [(each.worker_id, each.reason) for each in m.out] == [("w1", "a file is cut off")]
    assert (n.name, n.workers, n.loaded) == ("n", 1, 1)
