"""The batch former over random crowds: what must hold of every batch."""

from hypothesis import given
from hypothesis import strategies as st

from worker.batcher import AGEING_S, Candidate, next_batch

candidates: st.SearchStrategy[Candidate[int]] = st.builds(
    Candidate,
    item=st.just(0),
    key=st.tuples(st.sampled_from(["a", "b", "c"])),
    priority=st.integers(-10, 10),
    solo=st.booleans(),
    received_s=st.floats(0, 1_000, allow_nan=False),
    order=st.just(0),
)


@st.composite
def crowds(draw: st.DrawFn) -> list[Candidate[int]]:
    drawn = draw(st.lists(candidates, max_size=30))
    return [
        Candidate(item=number, key=c.key, priority=c.priority, solo=c.solo, received_s=c.received_s, order=number)
        for number, c in enumerate(drawn)
    ]


def rank(candidate: Candidate[int], now_s: float) -> tuple[float, float, int]:
    aged = candidate.priority + max(0, int((now_s - candidate.received_s) / AGEING_S))
    return (-aged, candidate.received_s, candidate.order)


@given(crowds(), st.integers(1, 8), st.floats(0, 2_000, allow_nan=False))
def test_every_batch_keeps_the_rules(crowd: list[Candidate[int]], limit: int, now_s: float) -> None:
    batch = next_batch(crowd, limit=lambda _: limit, now_s=now_s)
    members = [crowd[item] for item in batch]
    assert bool(members) == bool(crowd)  # no artificial wait
    assert len(set(batch)) == len(batch) <= limit
    if not members:
        return
    head = min(crowd, key=lambda each: rank(each, now_s))
    assert members[0] == head  # nobody goes before the first in line
    assert len({member.key for member in members}) == 1
    if any(member.solo for member in members):
        assert len(members) == 1
        return
    left = [each for each in crowd if each.key == head.key and not each.solo and each.item not in batch]
    assert not left or len(members) == limit  # full, or nobody left who could join
    if left:
        assert max(rank(member, now_s) for member in members) <= min(rank(each, now_s) for each in left)


@given(crowds(), st.integers(1, 8))
def test_taking_batch_after_batch_serves_everybody_once(crowd: list[Candidate[int]], limit: int) -> None:
    waiting, served = list(crowd), list[int]()
    while batch := next_batch(waiting, limit=lambda _: limit, now_s=1_000.0):
        served += batch
        waiting = [each for each in waiting if each.item not in batch]
    assert sorted(served) == list(range(len(crowd)))


def test_a_patient_image_overtakes_a_stream_of_urgent_ones() -> None:
    def one(number: int, priority: int, received_s: float) -> Candidate[int]:
        return Candidate(item=number, key=("k",), priority=priority, solo=False, received_s=received_s, order=number)

    crowd = [one(1, 0, 0.0), one(2, 3, 100.0)]
    assert next_batch(crowd, limit=lambda _: 1, now_s=100.0) == (1,)
    assert next_batch(crowd, limit=lambda _: 1, now_s=60.0) == (2,)
