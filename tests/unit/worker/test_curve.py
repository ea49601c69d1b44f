"""What is made of measured steps."""

import random

import pytest

from worker.batching.step_times import SETTLING, UNKNOWN_ALPHA, UNKNOWN_STEP_S, StepTimes, _Size

KIND = ("model", 512, 512)


def taught(*steps: tuple[int, float], times: int = 50) -> StepTimes:
    curves = StepTimes()
    for size, seconds in steps:
        for _ in range(times):
            curves.observe(KIND, size, seconds)
    return curves


def test_an_unknown_kind_has_the_documented_curve() -> None:
    step_s = StepTimes().step_s(KIND)
    assert not StepTimes().known(KIND)
    assert step_s(1) == UNKNOWN_STEP_S
    assert step_s(3) == pytest.approx(UNKNOWN_STEP_S * (1 + 2 * UNKNOWN_ALPHA))


def test_one_size_says_how_fast_and_the_rest_is_assumed() -> None:
    curves = taught((1, 0.2))
    assert curves.known(KIND)
    assert curves.step_s(KIND)(1) == pytest.approx(0.2)
    assert curves.step_s(KIND)(8) == pytest.approx(0.2 * (1 + 7 * UNKNOWN_ALPHA))


def test_sizes_never_seen_lie_on_the_line_through_those_that_were() -> None:
    step_s = taught((1, 0.10), (8, 0.31)).step_s(KIND)
    assert step_s(4) == pytest.approx(0.19)
    assert step_s(16) == pytest.approx(0.55)


def test_what_was_measured_counts_more_than_the_line() -> None:
    step_s = taught((1, 0.1), (2, 0.1), (3, 0.2), (4, 0.2)).step_s(KIND)
    assert step_s(2) == pytest.approx(0.1, rel=0.05)
    assert step_s(3) == pytest.approx(0.2, rel=0.05)


def test_it_never_falls_with_the_size() -> None:
    step_s = taught((1, 0.3), (2, 0.2), (3, 0.25), (8, 0.22)).step_s(KIND)
    times = [step_s(size) for size in range(1, 33)]
    assert times == sorted(times)


def test_noise_and_pauses_hardly_move_it() -> None:
    rng = random.Random(1)
    curves = StepTimes()
    for _ in range(2_000):
        size = rng.randint(1, 8)
        pause = 10 if rng.random() < 0.01 else 1
        curves.observe(KIND, size, (0.05 + 0.02 * size) * rng.gauss(1, 0.05) * pause)
        step_s = curves.step_s(KIND)
    for size in range(1, 9):
        assert step_s(size) == pytest.approx(0.05 + 0.02 * size, rel=0.1)


def test_the_slow_first_steps_of_a_size_do_not_stick() -> None:
    curves = taught((1, 0.1))
    for _ in range(SETTLING - 1):
        curves.observe(KIND, 2, 5.0)
    curves.observe(KIND, 2, 0.12)
    assert curves.step_s(KIND)(2) < 0.2


def test_a_device_that_became_slower_is_followed() -> None:
    curves = taught((1, 0.1))
    for _ in range(60):
        curves.observe(KIND, 1, 0.4)
    assert curves.step_s(KIND)(1) == pytest.approx(0.4, rel=0.05)


def test_memory_is_bounded() -> None:
    curves = StepTimes(remembered=2)
    for number in (1, 2, 1, 3):
        curves.observe((number,), 1, 0.1)
    assert [curves.known((number,)) for number in (1, 2, 3)] == [True, False, True]
    for size in range(1, 1_000):
        curves.observe(KIND, size, 0.1)
    assert curves.step_s(KIND)(1_000) == pytest.approx(0.1)


def test_kinds_are_told_apart() -> None:
    curves = taught((1, 0.1))
    assert curves.step_s(("other",))(1) == UNKNOWN_STEP_S


def test_a_step_observed_while_the_line_is_drawn_is_seen_at_the_next_asking() -> None:
    """The GPU's thread asks while the event loop observes: here in the middle of the asking."""
    curves = taught((1, 0.1))

    class Interrupted(_Size):
        @property
        def steps(self) -> int:  # type: ignore[override]
            curves.observe(KIND, 2, 0.5)
            return 50

    step_s = curves.step_s(KIND)
    curves._curves[KIND].sizes[1] = object.__new__(Interrupted)
    curves._curves[KIND].sizes[1].seconds = 0.1
    assert step_s(2) == pytest.approx(0.1 * (1 + UNKNOWN_ALPHA))
    curves.observe(KIND, 3, 0.7)
    assert step_s(2) > 0.2
