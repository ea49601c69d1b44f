"""Which images take the next step together: a pure function of those present. The GPU thread calls it between steps.

**Order.** Priority, raised by one for every AGEING_S of waiting; among equals the shortest remaining work, divided by
1 + (waited / patience)². Patience is measured in the work present, so the rule is the same for a model of 4 fast
steps and one of 50 slow ones, and it grows with what batching gains, since an image passed over then catches up.

**Size.** For each batch size the remaining work is simulated: all images present, shortest first, that many at a time,
no other arriving. The size with the least waiting wins. Where batching gains nothing that is one, whatever
waits; where it gains, the size grows with the square root of the line. Each image beyond the first `limit` counts as
BACKLOG more that wait for the very last one, since behind a long line more is coming: there throughput decides.

Simulated and measured in `loadtests/bench/batching.py`. No clock, no I/O.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
AGEING_S = 30.0
"""Waiting this long is worth one step of priority: nothing starves behind a stream of urgent work."""
PATIENCE = 0.6
"""Waiting for this share of all work that is here halves an image's remaining work in the order."""
PARKED_PER_SEAT = 2
"""Most parked images for each image that may run: an image that has begun holds memory until it is finished."""
LEAST_GAIN = 0.005
"""A larger batch must be better by this share: near a tie the smaller one finishes an image sooner."""
BACKLOG = 8
"""Images yet to come for each one beyond the first `limit`."""
LOOK_AHEAD = 4
"""At most this many times `limit` images are simulated."""


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
    patience: float = PATIENCE,
) -> tuple[T, ...]:
    """The images that take the next step, best first; empty only when `seats` is. All have one batch key, none is solo.

    `step_s(b)` is the seconds of one step of a batch of b. At most `limit` are chosen, unless more run that cannot be
    parked. Without `join` the running ones go on alone, and a batch is formed when none runs.
    """
    if len(seats) == 1:
        return (seats[0].item,)
    limit = max(1, limit)
    staying = [seat for seat in seats if seat.running] if not (park and join) else []
    if staying and (not join or len(staying) >= min(limit, len(seats))):
        return tuple(seat.item for seat in staying)
    if not seats:
        return ()
    times = [0.0, *map(step_s, range(1, limit + 1))]
    size = _size(seats, times, least=max(1, len(staying)))
    ranked = _ranked(seats, times, ageing_s, patience)
    return tuple(seat.item for seat in _admitted(ranked, staying, size, PARKED_PER_SEAT * limit))


def _admitted(ranked: Sequence[Seat[T]], staying: Sequence[Seat[T]], size: int, parked: int) -> list[Seat[T]]:
    """Those that stay and the best of the others, up to `size`. No image begins where that could leave more than
    `parked` images parked.
    """
    may_begin = parked + 1 - sum([seat.running or seat.parked for seat in ranked])
    chosen = list(staying)
    for seat in ranked:
        if len(chosen) >= size:
            break
        if staying and seat.running:
            continue
        if not (seat.running or seat.parked):
            if may_begin <= 0:
                continue
            may_begin -= 1
        chosen.append(seat)
    return chosen


def _ranked(seats: Sequence[Seat[T]], times: Sequence[float], ageing_s: float, patience: float) -> list[Seat[T]]:
    """Best first. `times[b]` is the seconds of a step of b."""
    limit = len(times) - 1
    gain = limit * times[1] / times[limit]
    patience_s = patience * gain * gain * times[1] * sum([seat.remaining_steps for seat in seats])

    def rank(seat: Seat[T]) -> tuple[int, float, int]:
        waited_s = seat.waited_s
        aged = seat.priority + (int(waited_s / ageing_s) if waited_s > ageing_s else 0)
        # An image that runs counts as a step further, so that two of a kind do not alternate.
        left = seat.remaining_steps - seat.running
        return (-aged, left / (1.0 + (waited_s / patience_s) ** 2), seat.order)

    return sorted(seats, key=rank)


def _size(seats: Sequence[Seat[T]], times: Sequence[float], least: int) -> int:
    """The batch size, from `least` up, with the least total waiting of the images present."""
    limit = len(times) - 1
    work = sorted([seat.remaining_steps for seat in seats])[: LOOK_AHEAD * limit]
    best, best_cost, worse = least, float("inf"), 0
    for size in range(least, min(limit, len(work)) + 1):
        cost = _waiting_s(work, times, size)
        if cost < best_cost * (1.0 - LEAST_GAIN):
            best, best_cost, worse = size, cost, 0
        else:
            worse += 1
            if worse == 2:  # the cost falls and then rises: larger sizes would not win
                break
    return best


def _waiting_s(work: Sequence[int], times: Sequence[float], size: int) -> float:
    """The sum of the times at which jobs of so many steps, the shortest first, are done, `size` at a time."""
    many = len(work)
    ends = list(work)  # in steps of the whole batch; a job follows the one `size` places before it
    for at in range(size, many):
        ends[at] += ends[at - size]
    full = many - size  # the last one that ends while all seats are taken
    now_s = ends[full] * times[size]
    total = sum(ends[: full + 1]) * times[size]
    for at in range(full + 1, many):
        now_s += (ends[at] - ends[at - 1]) * times[many - at]
        total += now_s
    return total + now_s * BACKLOG * max(0, many + 1 - len(times))
