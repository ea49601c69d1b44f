"""The batch former over random crowds: what must hold of every batch."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from worker.batching.batcher import Candidate, head, next_batch
from worker.batching.policy import AGEING_S
from worker.engines.contract import BatchKey

candidates: st.SearchStrategy[Candidate[int]] = st.builds(
    Candidate,
    item=st.just(0),
    key=st.tuples(st.sampled_from(["a", "b", "c"])),
    steps=st.integers(1, 50),
    priority=st.integers(-10, 10),
    solo=st.booleans(),
    received_s=st.floats(0, 1_000, allow_nan=False),
    order=st.just(0),
)


@st.composite
def crowds(draw: st.DrawFn) -> list[Candidate[int]]:
    drawn = draw(st.lists(candidates, max_size=30))
    return [replace(candidate, item=number, order=number) for number, candidate in enumerate(drawn)]


def rank(candidate: Candidate[int], now_s: float) -> tuple[float, float, int]:
    aged = candidate.priority + max(0, int((now_s - candidate.received_s) / AGEING_S))
    return (-aged, candidate.received_s, candidate.order)


def curve(alpha: float) -> Callable[[BatchKey], Callable[[int], float]]:
    return lambda _: lambda size: 0.05 * (1 - alpha + alpha * size)


def batch_of(crowd: Sequence[Candidate[int]], limit: int, now_s: float, alpha: float = 0.3) -> tuple[int, ...]:
    return next_batch(crowd, step_s=curve(alpha), limit=lambda _: limit, now_s=now_s)


@given(crowds(), st.integers(1, 8), st.floats(0, 2_000, allow_nan=False), st.floats(0, 1))
def test_every_batch_keeps_the_rules(crowd: list[Candidate[int]], limit: int, now_s: float, alpha: float) -> None:
    batch = batch_of(crowd, limit, now_s, alpha)
    members = [each for each in crowd if each.item in batch]
    assert bool(members) == bool(crowd)  # no artificial wait
    assert len(set(batch)) == len(batch) == len(members) <= limit
    if not members:
        return
    first = min(crowd, key=lambda each: rank(each, now_s))
    assert head(crowd, now_s=now_s) == first
    assert {member.key for member in members} == {first.key}  # the first in line says which key's turn it is
    if first.solo or any(member.solo for member in members):
        assert members == [first]


@given(crowds(), st.integers(1, 8))
def test_taking_batch_after_batch_serves_everybody_once(crowd: list[Candidate[int]], limit: int) -> None:
    waiting, served = list(crowd), list[int]()
    while batch := batch_of(waiting, limit, 1_000.0):
        served += batch
        waiting = [each for each in waiting if each.item not in batch]
    assert sorted(served) == list(range(len(crowd)))


def test_a_patient_image_overtakes_a_stream_of_urgent_ones() -> None:
    def one(number: int, priority: int, received_s: float) -> Candidate[int]:
        return Candidate(
            item=number, key=("k",), steps=8, priority=priority, solo=False, received_s=received_s, order=number
        )

    crowd = [one(1, 0, 0.0), one(2, 3, 100.0)]
    assert batch_of(crowd, 1, 100.0) == (1,)
    assert batch_of(crowd, 1, 60.0) == (2,)
