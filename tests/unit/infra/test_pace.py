"""Calls to a service that answers none of them, counted in virtual time."""

import asyncio
from collections.abc import Callable

from infra.pace import FREE, LONGEST_S, Pace
from infra.retry import backoff_s
from tests import virtual_time


class Service:
    """Answers a call after `took_s`; `works` says whether it does what it is asked."""

    def __init__(self, works: Callable[[float], bool], *, took_s: float = 0.01) -> None:
        self._works = works
        self._took_s = took_s
        self.pace = Pace(lambda: 0.5)
        self.calls: list[float] = []
        self.served: list[float] = []

    async def call(self) -> bool:
        await self.pace.turn()
        now_s = asyncio.get_running_loop().time()
        self.calls.append(now_s)
        await asyncio.sleep(self._took_s)
        if self._works(now_s):
            self.pace.worked()
            self.served.append(now_s)
            return True
        self.pace.failed()
        return False


async def loop_forever(service: Service) -> None:
    failures = 0
    while True:
        failures = 0 if await service.call() else failures + 1
        await asyncio.sleep(backoff_s(failures, first_s=0.2, cap_s=5.0, draw=0.5) if failures else 0.1)


async def run(service: Service, loops: int, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for _ in range(loops):
                group.create_task(loop_forever(service))
    except TimeoutError:
        pass


def test_many_loops_of_a_service_that_is_away_make_the_calls_of_one() -> None:
    async def main() -> None:
        service = Service(lambda _: False)
        await run(service, 20, 60)
        assert len(service.calls) <= 20 + 18, "each loop fails once before it is known, then one probes for all"
        first_minute = len(service.calls)
        await run(service, 20, 600)
        assert len(service.calls) - first_minute <= 600 / LONGEST_S + 1

    virtual_time.run(main())


def test_all_go_on_at_once_when_it_answers_again() -> None:
    async def main() -> None:
        begun_s = asyncio.get_running_loop().time()
        service = Service(lambda now_s: now_s > begun_s + 100)
        await run(service, 20, 120)
        first_s = service.served[0] - begun_s - 100
        assert first_s <= LONGEST_S * 1.25
        assert len([each for each in service.served if each < service.served[0] + 1]) >= 20

    virtual_time.run(main())


def test_a_service_that_mostly_fails_holds_nobody_back_for_long() -> None:
    """As long as one in `FREE` succeeds nothing is held back at all."""

    async def main() -> None:
        count = 0

        def works(_: float) -> bool:
            nonlocal count
            count += 1
            return count % FREE == 0

        service = Service(works)
        begun_s = asyncio.get_running_loop().time()
        for _ in range(1000):
            await service.call()
        assert asyncio.get_running_loop().time() - begun_s < 1000 * 0.01 + 0.1

    virtual_time.run(main())


def test_a_caller_that_gives_up_keeps_nobody_waiting() -> None:
    async def main() -> None:
        service = Service(lambda _: False)
        await run(service, 1, 30)
        waiting = [asyncio.ensure_future(service.pace.turn()) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        service.pace.worked()
        async with asyncio.timeout(0.1):
            await asyncio.gather(*waiting[1:])

    virtual_time.run(main())
