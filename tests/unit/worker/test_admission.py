"""Who takes the next step, case by case."""

from collections.abc import Callable, Sequence

from worker.batching.policy import AGEING_S, PARKED_PER_SEAT, Seat, next_step


def seat(
    item: int,
    steps: int = 30,
    *,
    priority: int = 0,
    waited_s: float = 0.0,
    running: bool = False,
    parked: bool = False,
) -> Seat[int]:
    return Seat(
        item=item,
        remaining_steps=steps,
        priority=priority,
        waited_s=waited_s,
        order=item,
        running=running,
        parked=parked,
    )


def curve(alpha: float) -> Callable[[int], float]:
    return lambda size: 0.05 * (1 - alpha + alpha * size)


def step(
    seats: Sequence[Seat[int]], alpha: float = 0.3, *, limit: int = 8, join: bool = True, park: bool = True
) -> tuple[int, ...]:
    return next_step(seats, step_s=curve(alpha), limit=limit, join=join, park=park)


def test_nobody_is_here() -> None:
    assert step([]) == ()


def test_one_image_never_waits() -> None:
    assert step([seat(1, parked=True)], alpha=1.0) == (1,)


def test_where_batching_gains_nothing_the_shortest_goes_alone() -> None:
    assert step([seat(1, 50, running=True), seat(2, 4), seat(3, 30)], alpha=1.0) == (2,)


def test_a_shorter_image_takes_the_place_of_a_longer_one_only_where_that_can_be_parked() -> None:
    seats = [seat(1, 50, running=True), seat(2, 4)]
    assert step(seats, alpha=1.0, park=False) == (1,)
    assert set(step(seats, alpha=0.1, park=False)) == {1, 2}


def test_where_batching_is_nearly_free_all_go_together() -> None:
    assert set(step([seat(item) for item in range(6)], alpha=0.05)) == set(range(6))


def test_the_batch_grows_with_the_line() -> None:
    def size(line: int) -> int:
        return len(step([seat(item) for item in range(line)], alpha=0.5))

    sizes = [size(line) for line in (1, 2, 4, 9, 24)]
    assert sizes == sorted(sizes)
    assert sizes[:2] == [1, 1]
    assert sizes[-1] == 8


def test_a_long_line_is_served_at_the_highest_rate() -> None:
    assert len(step([seat(item) for item in range(24)], alpha=0.8)) > 4


def test_without_joining_the_running_ones_go_on_alone() -> None:
    seats = [seat(1, running=True), seat(2, running=True), seat(3, 1)]
    assert set(step(seats, join=False)) == {1, 2}


def test_without_joining_a_batch_is_formed_when_nobody_runs() -> None:
    assert set(step([seat(1), seat(2)], alpha=0.1, join=False, park=False)) == {1, 2}


def test_more_than_the_limit_stay_in_when_they_cannot_be_parked() -> None:
    seats = [seat(item, running=True) for item in range(4)]
    assert set(step([*seats, seat(9, 1)], limit=2, park=False)) == set(range(4))
    assert len(step([*seats, seat(9, 1)], limit=2)) <= 2


def test_the_urgent_go_first_whatever_their_length() -> None:
    assert step([seat(1, 4), seat(2, 50, priority=1)], alpha=1.0) == (2,)


def test_thirty_seconds_of_waiting_are_worth_one_step_of_priority() -> None:
    newcomer = seat(2, 4, priority=1)
    assert step([seat(1, 50, waited_s=AGEING_S - 1), newcomer], alpha=1.0) == (2,)
    assert step([seat(1, 50, waited_s=2 * AGEING_S + 1), newcomer], alpha=1.0) == (1,)


def test_a_long_image_is_not_passed_over_for_ever() -> None:
    """Short ones keep coming, at 80 % of what the GPU can do."""
    long, now_s, number, served = seat(0, 50), 0.0, 1, 0
    left = 50
    while left and now_s < 60:
        long = seat(0, left, waited_s=now_s, running=served == 0, parked=left < 50)
        chosen = step([long, seat(number, 4)], alpha=1.0)
        now_s += 0.05
        served = chosen[0]
        left -= served == 0
        number += 1
    assert left == 0
    assert now_s < AGEING_S


def test_two_of_a_kind_do_not_take_turns() -> None:
    assert step([seat(1, 30), seat(2, 30, running=True, waited_s=0.0)], alpha=1.0) == (2,)


def test_no_image_begins_while_too_many_stand_aside() -> None:
    parked = [seat(item, 50, parked=True) for item in range(PARKED_PER_SEAT * 2 + 1)]
    assert step([*parked, seat(99, 1)], alpha=1.0, limit=2) != (99,)
    assert step([*parked[1:], seat(99, 1)], alpha=1.0, limit=2) == (99,)


def test_a_curve_that_says_batching_is_free_is_believed() -> None:
    assert len(next_step([seat(1), seat(2)], step_s=lambda _: 1.0, limit=8, join=True, park=True)) == 2
