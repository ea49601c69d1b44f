"""Which images go through the model next: a pure function of what waits. The GPU loop calls it.

Order: priority, raised by one for every `ageing_s` of waiting, then age. The first image's key is the batch's
key, and the batch fills with the oldest of that key. A solo image runs alone. Nobody waits for mates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.engines.contract import BatchKey

T = TypeVar("T")
AGEING_S = 30.0
"""Waiting this long is worth one step of priority: nothing starves behind a stream of urgent work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Generic[T]):
    """One waiting image. `order` is the order of receipt and breaks ties."""

    item: T
    key: BatchKey
    priority: int
    solo: bool
    received_s: float
    order: int


def next_batch(
    waiting: Sequence[Candidate[T]],
    *,
    limit: Callable[[T], int],
    now_s: float,
    ageing_s: float = AGEING_S,
) -> tuple[T, ...]:
    """The next batch, in order; empty when nothing waits. `limit` says how many may join the batch of an image."""

    def rank(candidate: Candidate[T]) -> tuple[float, float, int]:
        aged = int((now_s - candidate.received_s) / ageing_s)
        return (-(candidate.priority + max(0, aged)), candidate.received_s, candidate.order)

    if not waiting:
        return ()
    ranked = sorted(waiting, key=rank)
    head = ranked[0]
    if head.solo:
        return (head.item,)
    mates = [each.item for each in ranked if each.key == head.key and not each.solo]
    return tuple(mates[: max(1, limit(head.item))])
