"""The admission policy over random crowds and curves: what must hold of every step, and of a whole day of steps."""

from dataclasses import replace
from itertools import accumulate
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from worker.batching.policy import PARKED_PER_SEAT, Seat, next_step

STATES = ((False, False), (True, False), (False, True))


@st.composite
def crowds(draw: st.DrawFn) -> list[Seat[int]]:
    drawn = draw(
        st.lists(
            st.tuples(st.integers(1, 60), st.integers(-10, 10), st.floats(0, 500), st.sampled_from(STATES)),
            max_size=30,
        )
    )
    return [
        Seat(
            item=number,
            remaining_steps=steps,
            priority=priority,
            waited_s=waited_s,
            order=number,
            running=running,
            parked=parked,
        )
        for number, (steps, priority, waited_s, (running, parked)) in enumerate(drawn)
    ]


curves = st.lists(st.floats(0, 1), min_size=8, max_size=8).map(lambda rises: list(accumulate([0.05, *rises])))


@given(crowds(), curves, st.integers(1, 8), st.booleans(), st.booleans())
def test_every_step_keeps_the_rules(
    seats: list[Seat[int]], times: list[float], limit: int, join: bool, park: bool
) -> None:
    chosen = next_step(seats, step_s=lambda size: times[size - 1], limit=limit, join=join, park=park)
    running = {seat.item for seat in seats if seat.running}
    assert bool(chosen) == bool(seats)  # no artificial wait
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= {seat.item for seat in seats}
    if running and not join:
        assert set(chosen) == running
    elif not park:
        assert running <= set(chosen)
        assert len(chosen) <= max(limit, len(running))
    else:
        assert len(chosen) <= limit


@given(crowds(), curves, st.integers(1, 8), st.randoms())
def test_the_order_in_which_the_crowd_is_told_does_not_matter(
    seats: list[Seat[int]], times: list[float], limit: int, rng: Random
) -> None:
    shuffled = list(seats)
    rng.shuffle(shuffled)

    def chosen(crowd: list[Seat[int]]) -> tuple[int, ...]:
        return next_step(crowd, step_s=lambda size: times[size - 1], limit=limit, join=True, park=True)

    assert chosen(seats) == chosen(shuffled)


@given(crowds(), curves, st.integers(1, 8), st.booleans(), st.booleans())
def test_everybody_is_served_and_few_stand_aside(
    seats: list[Seat[int]], times: list[float], limit: int, join: bool, park: bool
) -> None:
    here = {seat.item: replace(seat, running=False, parked=False) for seat in seats}
    left = sum(seat.remaining_steps for seat in seats)
    while here:
        chosen = next_step(list(here.values()), step_s=lambda size: times[size - 1], limit=limit, join=join, park=park)
        left -= len(chosen)
        for item, seat in list(here.items()):
            begun = seat.running or seat.parked
            took = item in chosen
            steps = seat.remaining_steps - took
            waited_s = seat.waited_s + times[len(chosen) - 1]
            here[item] = replace(
                seat, remaining_steps=steps, waited_s=waited_s, running=took, parked=begun and not took
            )
            if not steps:
                del here[item]
        parked = sum(seat.parked for seat in here.values())
        assert parked <= (PARKED_PER_SEAT * limit if park and join else 0)
    assert left == 0


@given(crowds(), curves, st.integers(1, 8))
def test_nobody_of_the_same_length_and_priority_goes_before_one_who_came_earlier(
    seats: list[Seat[int]], times: list[float], limit: int
) -> None:
    waiting = [replace(seat, running=False, parked=False, remaining_steps=20, priority=0) for seat in seats]
    chosen = set(next_step(waiting, step_s=lambda size: times[size - 1], limit=limit, join=True, park=True))
    left = [seat.waited_s for seat in waiting if seat.item not in chosen]
    if left:
        first = min(seat.waited_s for seat in waiting if seat.item in chosen)
        assert max(left) <= first + 1e-6  # less is lost in rounding
