"""Which images go next to an idle GPU: pure functions of what waits.

Order: priority, raised by one for every `ageing_s` of waiting, then age. The first image's key is the next batch's
key; which images of that key go together is the admission policy's choice. A solo image runs alone. A batch never waits
to be filled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.batching.policy import AGEING_S, Seat, next_step
from worker.engines.contract import BatchKey

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Generic[T]):
    """One waiting image. `steps` it will take; `order` is the order of receipt and breaks ties."""

    item: T
    key: BatchKey
    steps: int
    priority: int
    solo: bool
    received_s: float
    order: int

    def seat(self, now_s: float) -> Seat[T]:
        """As the admission policy sees it."""
        return Seat(
            item=self.item,
            remaining_steps=self.steps,
            priority=self.priority,
            waited_s=max(0.0, now_s - self.received_s),
            order=self.order,
            running=False,
            parked=False,
        )


def head(waiting: Sequence[Candidate[T]], *, now_s: float, ageing_s: float = AGEING_S) -> Candidate[T] | None:
    """The first in line."""

    def rank(candidate: Candidate[T]) -> tuple[float, float, int]:
        aged = int((now_s - candidate.received_s) / ageing_s)
        return (-(candidate.priority + max(0, aged)), candidate.received_s, candidate.order)

    return min(waiting, key=rank, default=None)


def next_batch(
    waiting: Sequence[Candidate[T]],
    *,
    step_s: Callable[[BatchKey], Callable[[int], float]],
    limit: Callable[[T], int],
    now_s: float,
) -> tuple[T, ...]:
    """The images that go to an idle GPU; empty when nothing waits. `limit`: how many may go together with one."""
    first = head(waiting, now_s=now_s)
    if first is None:
        return ()
    if first.solo:
        return (first.item,)
    mates = [each.seat(now_s) for each in waiting if each.key == first.key and not each.solo]
    return next_step(mates, step_s=step_s(first.key), limit=max(1, limit(first.item)), join=True, park=True)
