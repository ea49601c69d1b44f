"""Laws of the order, on drawn backlogs that change while they are served."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from core.schedule import Backlog, Pending, Ref

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

    backlog: Backlog = field(default_factory=lambda: Backlog(overtaking_s=BOUND_S))
    waiting: dict[Ref, Pending] = field(default_factory=dict)
    added: list[Ref] = field(default_factory=list)
    chosen: list[Ref] = field(default_factory=list)
    overtaken_s: float = 0.0

    def step(self, what: str, value: object) -> None:
        if what == "add":
            number = len(self.added)
            pending = Pending(ref=(f"g{number}", 0), age=number, **value)  # type: ignore[arg-type]
            self.backlog.add(pending)
            self.waiting[pending.ref] = pending
            self.added.append(pending.ref)
        elif what == "remove":
            ref = self.added[value % len(self.added)] if self.added else ("none", 0)  # type: ignore[operator]
            if next(iter(self.waiting), None) == ref:
                self.overtaken_s = 0.0
            assert self.backlog.remove(ref) == (self.waiting.pop(ref, None) is not None)
        else:
            self.serve(value, 5)  # type: ignore[arg-type]

    def serve(self, limit: int, batch: int) -> None:
        before = len(self.waiting)
        chosen = self.backlog.choose(limit, batch)
        assert len(chosen) == min(limit, before)
        for each in chosen:
            longest = next(iter(self.waiting))
            if each.ref == longest:
                self.overtaken_s = 0.0
            else:
                self.overtaken_s += each.work_s
                assert self.overtaken_s <= BOUND_S, f"{longest} is overtaken by {self.overtaken_s} s"
            del self.waiting[each.ref]
            self.chosen.append(each.ref)


@given(steps)
@settings(max_examples=300, deadline=None)
def test_the_longest_waiting_is_overtaken_by_the_bound_at_most_and_all_are_chosen_once(
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
    assert not run.backlog._by_priority


@given(steps)
@settings(max_examples=100, deadline=None)
def test_the_order_is_determined_by_what_happened(drawn: list[tuple[str, object]]) -> None:
    first, second = Run(), Run()
    for what, value in drawn:
        first.step(what, value)
    for what, value in drawn:
        second.step(what, value)
    assert first.chosen == second.chosen


@given(
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=2, max_size=4),
    batch=st.integers(1, 8),
    same_key=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_tenants_that_always_wait_get_equal_work(weights: list[float], batch: int, same_key: bool) -> None:
    """Their shares differ by what one batch holds and one image, at any moment."""
    backlog = Backlog(overtaking_s=1e9)
    for tenant, work_s in enumerate(weights):
        for number in range(300):
            backlog.add(
                Pending(
                    ref=(f"t{tenant}g{number}", 0),
                    tenant=f"t{tenant}",
                    priority=0,
                    age=number,
                    key="k" if same_key else tenant,
                    work_s=work_s,
                )
            )
    served = {f"t{tenant}": 0.0 for tenant in range(len(weights))}
    slack_s = batch * max(weights) + max(weights)
    for _ in range(30):
        for each in backlog.choose(batch, batch):
            served[each.tenant] += each.work_s
        assert max(served.values()) - min(served.values()) <= slack_s


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
