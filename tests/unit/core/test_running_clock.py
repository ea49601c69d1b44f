"""What counts as running."""

import asyncio

from core.runtime.running_clock import PAUSE_S, RunningClock
from tests import virtual_time


def test_it_follows_time_from_its_base() -> None:
    async def main() -> None:
        clock = RunningClock()
        clock.start(7_000)
        for _ in range(10):
            await asyncio.sleep(1)
            clock.now_ms()
        assert clock.now_ms() == 17_000

    virtual_time.run(main())


def test_an_hour_as_a_stopped_process_is_not_an_hour_of_running() -> None:
    async def main() -> None:
        clock = RunningClock()
        clock.start(0)
        await asyncio.sleep(3_600)  # nobody looked: the process was stopped, or the machine paused
        assert clock.now_ms() == PAUSE_S * 1_000
        await asyncio.sleep(1)
        assert clock.now_ms() == (PAUSE_S + 1) * 1_000

    virtual_time.run(main())
