"""Who takes the next step together: a pure function of who is here. The GPU loop calls it between two steps.

Order: priority, raised by one for every AGEING_S of waiting, then the shortest remaining work. No clock, no I/O.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
AGEING_S = 30.0
"""Waiting this long is worth one step of priority: nothing starves behind a stream of urgent work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat(Generic[T]):
    """One image that may take the next step: it waits, runs, or is parked."""

    item: T
    remaining_steps: int
    """Denoising steps left, at least 1."""
    priority: int
    """Higher is sooner."""
    waited_s: float
    """Since receipt."""
    order: int
    """Of receipt; breaks ties."""
    running: bool
    """Took part in the last step."""
    parked: bool
    """Has begun and stands aside."""


def next_step(
    seats: Sequence[Seat[T]],
    *,
    step_s: Callable[[int], float],
    limit: int,
    join: bool,
    park: bool,
    ageing_s: float = AGEING_S,
) -> tuple[T, ...]:
    """Who takes the next step, best first; empty only when `seats` is. All are of one batch key, none is solo.

    `step_s(b)` is the seconds of one step of a batch of b. At most `limit` are chosen, unless more run that cannot be
    parked. Without `join` the running ones go on alone, and a batch is formed when nobody runs.
    """
    if not seats:
        return ()
    running = [each for each in seats if each.running]
    if running and not join:
        return tuple(each.item for each in running)

    def rank(seat: Seat[T]) -> tuple[int, int, int]:
        return (-(seat.priority + int(seat.waited_s / ageing_s)), seat.remaining_steps, seat.order)

    staying = [] if park else running
    others = sorted((each for each in seats if park or not each.running), key=rank)
    best, best_cost = 1, float("inf")
    for size in range(1, max(1, min(limit, len(seats))) + 1):
        cost = step_s(size) * (len(seats) / size + 1)
        if cost < best_cost:
            best, best_cost = size, cost
    free = max(best - len(staying), 0)
    return tuple(each.item for each in (*staying, *others[:free]))
