"""Laws of the order, on drawn backlogs that change while they are served."""

from collections import defaultdict
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain.fair_queue import FairQueue, Pending
from core.domain.state import Ref

BOUND_S = 10.0

pendings: st.SearchStrategy[dict[str, object]] = st.builds(
    dict,
    tenant=st.sampled_from("abcd"),
    priority=st.integers(-2, 2),
    key=st.sampled_from("kmn"),
    work_s=st.sampled_from([0.5, 1.0, 4.0, 25.0]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), pendings),
        st.tuples(st.just("choose"), st.integers(1, 12)),
        st.tuples(st.just("remove"), st.integers(0, 200)),
    ),
    max_size=120,
)


@dataclass
class Run:
    """Replays steps, and keeps an account of its own of who was overtaken by how much."""

    backlog: FairQueue = field(default_factory=lambda: FairQueue(overtaking_s=BOUND_S))
    waiting: dict[Ref, Pending] = field(default_factory=dict)
    added: list[Ref] = field(default_factory=list)
    chosen: list[Ref] = field(default_factory=list)
    overtaken_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def step(self, what: str, value: object) -> None:
        if what == "add":
            number = len(self.added)
            pending = Pending(ref=(f"g{number}", 0), age=number, **value)  # type: ignore[arg-type]
            self.backlog.add(pending)
            self.waiting[pending.ref] = pending
            self.added.append(pending.ref)
        elif what == "remove":
            ref = self.added[value % len(self.added)] if self.added else ("none", 0)  # type: ignore[operator]
            pending_or_none = self.waiting.get(ref)
            if pending_or_none and self.of(pending_or_none.tenant)[0] == pending_or_none:
                self.overtaken_s[pending_or_none.tenant] = 0.0
            assert self.backlog.remove(ref) == (self.waiting.pop(ref, None) is not None)
        else:
            self.serve(value, 5)  # type: ignore[arg-type]

    def of(self, tenant: str) -> list[Pending]:
        return [each for each in self.waiting.values() if each.tenant == tenant]

    def serve(self, limit: int, batch: int) -> None:
        before = len(self.waiting)
        chosen = self.backlog.choose(limit, batch)
        assert len(chosen) == min(limit, before)
        for each in chosen:
            self.judge(each)
            del self.waiting[each.ref]
            self.chosen.append(each.ref)

    def judge(self, each: Pending) -> None:
        own = self.of(each.tenant)
        overtaken_s = self.overtaken_s[each.tenant]
        urgent = [other for other in own if other.priority > each.priority]
        if each == own[0]:
            if any(other.key == each.key for other in urgent):
                assert any(overtaken_s + other.work_s > BOUND_S for other in urgent), f"{each} is before {urgent}"
            self.overtaken_s[each.tenant] = 0.0
        else:
            assert not any(other.key == each.key for other in urgent), f"{each} is before {urgent}"
            assert overtaken_s + each.work_s <= BOUND_S, f"{own[0]} is overtaken by {overtaken_s + each.work_s} s"
            self.overtaken_s[each.tenant] += each.work_s


@given(steps)
@settings(max_examples=300, deadline=None)
def test_a_tenant_s_urgent_go_first_its_longest_waiting_is_overtaken_by_the_bound_at_most_and_all_are_chosen_once(
    drawn: list[tuple[str, object]],
) -> None:
    run = Run()
    for what, value in drawn:
        run.step(what, value)
        assert len(run.backlog) == len(run.waiting)
    run.serve(len(run.waiting) + 1, 7)
    assert not run.waiting
    assert len(set(run.chosen)) == len(run.chosen)
    assert not run.backlog._by_key
    assert not run.backlog._owners
    assert not run.backlog._all.lanes


@given(steps)
@settings(max_examples=100, deadline=None)
def test_the_order_is_determined_by_what_happened(drawn: list[tuple[str, object]]) -> None:
    first, second = Run(), Run()
    for what, value in drawn:
        first.step(what, value)
    for what, value in drawn:
        second.step(what, value)
    assert first.chosen == second.chosen


crowds = st.lists(
    st.tuples(
        st.sampled_from([0.5, 1.0, 2.0, 25.0, 40.0]),  # the seconds of each image: the last are dearer than the bound
        st.lists(st.integers(-10, 10), min_size=1, max_size=4),  # priorities, taken in turn
        st.lists(st.sampled_from("km"), min_size=1, max_size=3),  # keys, taken in turn
    ),
    min_size=2,
    max_size=5,
)


def fill(backlog: FairQueue, tenant: str, drawn: tuple[float, list[int], list[str]], first: int, many: int) -> None:
    work_s, priorities, keys = drawn
    for number in range(first, first + many):
        backlog.add(
            Pending(
                ref=(f"{tenant}g{number}", 0),
                tenant=tenant,
                priority=priorities[number % len(priorities)],
                age=number,
                key=keys[number % len(keys)],
                work_s=work_s,
            )
        )


@given(crowds, st.integers(1, 8), st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_tenants_that_always_wait_get_equal_work_whatever_their_priorities(
    crowd: list[tuple[float, list[int], list[str]]], batch: int, ahead: int
) -> None:
    """Their shares differ by what one batch holds and 30 s, or one image if that is more, at any moment.

    The first tenant was there earlier, with so many images that it is the longest waiting all the time.
    """
    backlog = FairQueue(overtaking_s=30.0)
    for tenant, drawn in enumerate(crowd):
        fill(backlog, f"t{tenant}", drawn, 0, 300 + (0 if tenant else ahead))
    served = {f"t{tenant}": 0.0 for tenant in range(len(crowd))}
    dearest_s = max(work_s for work_s, _, _ in crowd)
    for _ in range(30):
        for each in backlog.choose(batch, batch):
            served[each.tenant] += each.work_s
        assert max(served.values()) - min(served.values()) <= batch * dearest_s + max(30.0, dearest_s)


@given(crowds, st.integers(1, 8), st.integers(1, 20), st.integers(-10, 10))
@settings(max_examples=60, deadline=None)
def test_a_newcomer_waits_for_one_batch_of_each_other_tenant_at_most(
    crowd: list[tuple[float, list[int], list[str]]], batch: int, rounds: int, priority: int
) -> None:
    """Whatever their priorities and however long they have waited; of a tenant that was not heard of, or has paused."""
    backlog = FairQueue(overtaking_s=30.0)
    for tenant, drawn in enumerate(crowd):
        fill(backlog, f"t{tenant}", drawn, 0, 10 + 50 * batch)
    for newcomer in ("a", "z"):  # of equal charges the one goes first that waits longer, whatever the names
        for _ in range(rounds):
            backlog.choose(batch, batch)
        fill(backlog, newcomer, (1.0, [priority], ["rare"]), 1_000, 1)
        before = backlog.choose(len(crowd) * batch + 1, batch)
        assert any(each.tenant == newcomer for each in before)


@given(st.integers(1, 8), st.integers(2, 6))
@settings(max_examples=50, deadline=None)
def test_a_stream_of_new_tenants_does_not_keep_one_from_its_first_turn(batch: int, each_round: int) -> None:
    backlog = FairQueue(overtaking_s=30.0)
    fill(backlog, "z", (1.0, [-10], ["k"]), 0, 1)
    served: list[str] = []
    for number in range(20):
        for more in range(each_round):
            fill(backlog, f"n{number}-{more}", (1.0, [10], ["m"]), number, 1)
        served += [each.tenant for each in backlog.choose(1, batch)]
    assert served[0] == "z"


@given(st.lists(pendings, min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_within_tenant_priority_and_key_the_older_goes_first(drawn: list[dict[str, object]]) -> None:
    run = Run()
    for value in drawn:
        run.step("add", value)
    images = dict(run.waiting)
    run.serve(len(images), 4)
    last: dict[object, int] = {}
    for ref in run.chosen:
        each = images[ref]
        group = (each.tenant, each.priority, each.key)
        assert last.get(group, -1) < each.age
        last[group] = each.age
