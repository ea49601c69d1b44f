"""This machine's clock against the dates of answers."""

import asyncio
from email.utils import formatdate

import pytest

from infra.retry import Permanent
from infra.skew import AGREEING, Skew
from tests import virtual_time


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now_s


def dates(skew: Skew, clock: Clock, theirs_s: float, count: int = AGREEING) -> None:
    for _ in range(count):
        clock.now_s += 1
        theirs_s += 1
        skew.answered(formatdate(theirs_s, usegmt=True))


@pytest.mark.parametrize(("off_s", "side"), [(3600, "ahead of"), (-3600, "behind")])
def test_a_clock_that_is_off_is_named_with_its_side(off_s: int, side: str) -> None:
    clock = Clock()
    skew = Skew(120, wall_s=clock)
    dates(skew, clock, clock.now_s - off_s)
    assert skew.ahead_s == pytest.approx(off_s, abs=1)
    [reason] = skew.reasons()
    assert "3600 s" in reason
    assert side in reason
    dates(skew, clock, clock.now_s, count=1)
    assert skew.reasons() == [], "mended"


def test_one_answer_that_lay_about_proves_nothing() -> None:
    clock = Clock()
    skew = Skew(120, wall_s=clock)
    for _ in range(5):
        dates(skew, clock, clock.now_s - 3600, count=AGREEING - 1)
        assert skew.reasons() == []
        dates(skew, clock, clock.now_s, count=1)


def test_within_the_bound_all_is_well() -> None:
    clock = Clock()
    skew = Skew(120, wall_s=clock)
    dates(skew, clock, clock.now_s - 110, count=10)
    assert skew.reasons() == []
    assert skew.ahead_s == pytest.approx(110, abs=1)


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 20000 99:99:99 GMT", "\0"])
def test_what_is_no_date_is_ignored(date: str) -> None:
    skew = Skew(120, wall_s=Clock())
    for _ in range(5):
        skew.answered(date)
    assert skew.ahead_s == 0


def test_a_process_without_work_asks_and_asks_again_soon_when_in_doubt() -> None:
    """Refusals have dates too."""

    async def main() -> None:
        clock, asked = Clock(), []
        skew = Skew(120, wall_s=clock)

        async def ask() -> None:
            asked.append(asyncio.get_running_loop().time())
            skew.answered(formatdate(clock.now_s + 3600, usegmt=True))
            raise Permanent("head: RequestTimeTooSkewed")

        watch = asyncio.ensure_future(skew.watch(ask))
        await asyncio.sleep(5)
        assert "behind" in skew.reasons()[0]
        assert len(asked) == AGREEING
        await asyncio.sleep(300)
        assert len(asked) <= AGREEING + 10
        watch.cancel()

    virtual_time.run(main())
