"""One GPU in virtual time: the same arrivals under greedy static batches and under the worker's admission policy.

A plain discrete-event loop. The policy is not reimplemented: every step asks `worker.batching.policy.next_step`.
"""

import random
import statistics
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from worker.batching.policy import Seat, next_step
from worker.batching.step_times import StepTimes

LIMIT = 8
STEP_S = 0.05
KIND = ("emulated",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Images in the order of their arrival: when, and with how many steps."""

    arrivals_s: Sequence[float]
    steps: Sequence[int]


@dataclass(slots=True, kw_only=True)
class SimulatedRun:
    """Seconds from arrival to finish of each image, and what the GPU did."""

    sojourns_s: list[float]
    makespan_s: float
    steps: int = 0
    parkings: int = 0
    most_parked: int = 0


class Noisy:
    """What a worker would measure: steps with some noise, and now and then a pause."""

    def __init__(self, rng: random.Random, *, noise: float, pauses: float) -> None:
        self.curves = StepTimes()
        self._rng = rng
        self._noise = noise
        self._pauses = pauses

    def observe(self, size: int, seconds: float) -> None:
        """A step of that batch size took `seconds`, give or take."""
        measured_s = seconds * max(0.5, self._rng.gauss(1, self._noise))
        if self._rng.random() < self._pauses:
            measured_s *= 10
        self.curves.observe(KIND, size, measured_s)


def times_s(alpha: float) -> list[float]:
    """t(b) = t(1)·(1−α+αb) by b, from 0."""
    return [STEP_S * (1 - alpha + alpha * size) for size in range(LIMIT + 1)]


def poisson(rng: random.Random, mix: Sequence[int], images: int, per_s: float) -> Crowd:
    """Arrivals at that rate, step counts drawn evenly from the mix."""
    arrivals_s = list(accumulate(rng.expovariate(per_s) for _ in range(images)))
    return Crowd(arrivals_s=arrivals_s, steps=rng.choices(mix, k=images))


def all_at_once(rng: random.Random, mix: Sequence[int], images: int) -> Crowd:
    """The whole crowd waits at time 0."""
    return Crowd(arrivals_s=[0.0] * images, steps=rng.choices(mix, k=images))


def static_per_s(times: Sequence[float], mix: Sequence[int], cap: int, decode_s: float = 0.0) -> float:
    """Images a second of full static batches: the mean of the longest of `cap` draws decides."""
    many = len(mix)
    longest = sum(steps * (((rank + 1) / many) ** cap - (rank / many) ** cap) for rank, steps in enumerate(sorted(mix)))
    return cap / (times[cap] * longest + decode_s * cap)


def figures(outcome: SimulatedRun) -> dict[str, float]:
    """Median, 99th percentile and mean of the seconds from arrival to finish."""
    ordered = sorted(outcome.sojourns_s)
    return {
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[len(ordered) * 99 // 100],
        "mean": statistics.fmean(ordered),
    }


def ratios(ours: dict[str, float], base: dict[str, float]) -> dict[str, float]:
    """Each figure divided by the baseline's: below 1, ours is faster."""
    return {f"{name}_ratio": round(ours[name] / base[name], 3) for name in ours}


def static(crowd: Crowd, times: Sequence[float], cap: int, decode_s: float = 0.0) -> SimulatedRun:
    """Static batches, first come, first served: whenever the GPU is free, all waiting images start, up to the cap. All
    finish together, after the last step of the longest and after each has been decoded.
    """
    now_s, at, sojourns, taken = 0.0, 0, list[float](), 0
    arrivals = crowd.arrivals_s
    while at < len(arrivals):
        now_s = max(now_s, arrivals[at])
        end = min(at + cap, bisect_right(arrivals, now_s, lo=at))
        longest = max(crowd.steps[at:end])
        now_s += times[end - at] * longest + decode_s * (end - at)
        taken += longest
        sojourns += [now_s - each for each in arrivals[at:end]]
        at = end
    return SimulatedRun(sojourns_s=sojourns, makespan_s=now_s, steps=taken)


def stepwise(
    crowd: Crowd, times: Sequence[float], *, window: int = 0, noisy: Noisy | None = None, decode_s: float = 0.0
) -> SimulatedRun:
    """The worker's policy, asked before every step. It sees `window` waiting images (0: all), and the true curve or,
    with `noisy`, what `worker.batching.step_times` makes of measured steps.
    """
    run = _Run(crowd, window, decode_s)
    true_s = times.__getitem__
    while run.left:
        run.arrive()
        step_s = true_s if noisy is None else noisy.curves.step_s(KIND)
        chosen = next_step(run.seats, step_s=step_s, limit=LIMIT, join=True, park=True)
        seconds = times[len(chosen)]
        run.step(chosen, seconds)
        if noisy is not None:
            noisy.observe(len(chosen), seconds)
    return run.outcome


class _Run:
    """The images that have arrived and not finished, and the clock."""

    def __init__(self, crowd: Crowd, window: int, decode_s: float) -> None:
        self.seats: list[Seat[int]] = []
        self.left = len(crowd.steps)
        self.outcome = SimulatedRun(sojourns_s=[0.0] * self.left, makespan_s=0.0)
        self._crowd = crowd
        self._window = window or self.left
        self._decode_s = decode_s
        self._coming = deque(range(self.left))
        self._fresh = 0
        self._parked = 0
        self._now_s = 0.0

    def arrive(self) -> None:
        """Adds the images that have arrived, as far as the window allows, and updates how long each has waited."""
        arrivals, coming = self._crowd.arrivals_s, self._coming
        if not self.seats:
            self._now_s = max(self._now_s, arrivals[coming[0]])
        now_s = self._now_s
        while coming and self._fresh < self._window and arrivals[coming[0]] <= now_s:
            item = coming.popleft()
            self._fresh += 1
            self.seats.append(_seat(item, self._crowd.steps[item]))
        for seat in self.seats:
            _put(seat, "waited_s", now_s - arrivals[seat.item])

    def step(self, chosen: Sequence[int], seconds: float) -> None:
        """Runs one step of the chosen seats, and parks the other running ones. A seat without steps left is done."""
        self._now_s += seconds
        self.outcome.steps += 1
        takes_part = set(chosen)
        finished = False
        for seat in self.seats:
            if seat.item in takes_part:
                if not seat.running:
                    self._join(seat)
                _put(seat, "remaining_steps", seat.remaining_steps - 1)
                finished = finished or not seat.remaining_steps
            elif seat.running:
                self._park(seat)
        if finished:
            self._leave()

    def _join(self, seat: Seat[int]) -> None:
        if seat.parked:
            self._parked -= 1
        else:
            self._fresh -= 1
        _put(seat, "running", True)
        _put(seat, "parked", False)

    def _park(self, seat: Seat[int]) -> None:
        self._parked += 1
        self.outcome.parkings += 1
        self.outcome.most_parked = max(self.outcome.most_parked, self._parked)
        _put(seat, "running", False)
        _put(seat, "parked", True)

    def _leave(self) -> None:
        for seat in self.seats:
            if not seat.remaining_steps:
                self._now_s += self._decode_s
                self.outcome.sojourns_s[seat.item] = self._now_s - self._crowd.arrivals_s[seat.item]
                self.left -= 1
        self.outcome.makespan_s = self._now_s
        self.seats = [seat for seat in self.seats if seat.remaining_steps]


_put: Callable[[Seat[int], str, object], None] = object.__setattr__
"""Updates a frozen Seat in place: new seats for each step would cost more time than the policy itself."""


def _seat(item: int, steps: int) -> Seat[int]:
    return Seat(item=item, remaining_steps=steps, priority=0, waited_s=0.0, order=item, running=False, parked=False)
