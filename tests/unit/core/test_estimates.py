"""How long core waits for images that lie ahead: by the pace of late, as far as there was work."""

import asyncio

import pytest

from core.runtime.estimates import Estimates
from tests import virtual_time
from tests.core_events import spec

CAP_S = 900.0
AHEAD = 60


def test_busy_gpus_are_waited_for_at_their_pace() -> None:
    async def main() -> float:
        estimates = Estimates()
        estimates.work_begins()
        for _ in range(20):
            await asyncio.sleep(0.5)
            estimates.rendered(spec(), 4_000)
        return estimates.wait_s(AHEAD, CAP_S)

    assert virtual_time.run(main()) == pytest.approx(AHEAD * 0.5)


def test_a_picture_now_and_then_is_no_slow_pace() -> None:
    async def main() -> float:
        estimates = Estimates()
        for _ in range(12):
            await asyncio.sleep(4.0)
            estimates.work_begins()
            await asyncio.sleep(0.25)
            estimates.rendered(spec(), 100)
        return estimates.wait_s(AHEAD, CAP_S)

    assert virtual_time.run(main()) == pytest.approx(AHEAD * 0.25)


@pytest.mark.parametrize(("pictures", "every_s", "wait_s"), [(7, 0.5, 0.0), (20, 20.0, 0.0), (20, 3.0, CAP_S)])
def test_without_a_pace_nothing_is_added_and_nothing_beyond_the_cap(
    pictures: int, every_s: float, wait_s: float
) -> None:
    async def main() -> float:
        estimates = Estimates()
        estimates.work_begins()
        for _ in range(pictures):
            await asyncio.sleep(every_s)
            estimates.rendered(spec(), 60_000)
        return estimates.wait_s(10_000, CAP_S)

    assert virtual_time.run(main()) == wait_s
