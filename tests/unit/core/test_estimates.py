"""How long core waits for images that lie ahead: by the pace of late, and never longer than one GPU would need."""

import asyncio

import pytest

from core.estimates import Estimates
from tests import virtual_time
from tests.core_events import spec

CAP_S = 900.0


def wait_s(*, every_s: float, gpu_ms: float, pictures: int = 20, ahead: int = 60) -> float:
    """The wait after so many pictures at this pace."""

    async def main() -> float:
        estimates = Estimates()
        for _ in range(pictures):
            await asyncio.sleep(every_s)
            estimates.rendered(spec(), gpu_ms)
        return estimates.wait_s(ahead, CAP_S)

    return virtual_time.run(main())


def test_busy_gpus_are_waited_for_at_their_pace() -> None:
    assert wait_s(every_s=0.5, gpu_ms=4_000) == pytest.approx(60 * 0.5)


def test_a_pace_that_is_slow_for_want_of_work_is_no_reason_to_wait() -> None:
    assert wait_s(every_s=3.0, gpu_ms=100) == pytest.approx(60 * 0.1)


def test_an_engine_that_tells_no_times_is_waited_for_at_the_pace() -> None:
    assert wait_s(every_s=0.5, gpu_ms=0) == pytest.approx(60 * 0.5)


def test_without_a_pace_nothing_is_added_and_nothing_beyond_the_cap() -> None:
    assert wait_s(every_s=0.5, gpu_ms=100, pictures=7) == 0
    assert wait_s(every_s=3.0, gpu_ms=60_000, ahead=10_000) == CAP_S
