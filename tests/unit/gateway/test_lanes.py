"""Long calls spread over the lanes, up to a bound; a lane is given back however its call ends, or to who has fewer."""

import asyncio
from collections import Counter

import pytest

from gateway.core_client.lanes import Lanes
from tests.eventually import eventually


class Held:
    """Calls that last until `go`; `on` counts those on each lane."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.on: Counter[str] = Counter()

    async def call(self, lane: str) -> str:
        self.on[lane] += 1
        try:
            await self.go.wait()
        finally:
            self.on[lane] -= 1
        return lane


@pytest.mark.asyncio
async def test_calls_spread_evenly_and_find_no_lane_when_all_are_full() -> None:
    lanes, held = Lanes("abc", per_lane=2), Held()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(lanes.call("ann", held.call)) for _ in range(6)]
        await eventually(lambda: held.on == {"a": 2, "b": 2, "c": 2})
        assert await lanes.call("ann", held.call) is None
        held.go.set()
    assert sorted(str(each.result()) for each in tasks) == ["a", "a", "b", "b", "c", "c"]
    assert await lanes.call("ann", held.call) == "a"


@pytest.mark.asyncio
async def test_a_failed_call_gives_its_lane_back_and_its_own_time_out_is_its_own() -> None:
    lanes, held = Lanes("a", per_lane=1), Held()

    async def fail(_: str) -> str:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await lanes.call("ann", fail)
    held.go.set()
    assert await lanes.call("ann", held.call) == "a"


@pytest.mark.asyncio
async def test_who_has_all_lanes_gives_half_of_them_up_to_another() -> None:
    lanes, held = Lanes("ab", per_lane=4), Held()
    async with asyncio.TaskGroup() as group:
        ann = [group.create_task(lanes.call("ann", held.call)) for _ in range(8)]
        await eventually(lambda: held.on.total() == 8)
        bob = [group.create_task(lanes.call("bob", held.call)) for _ in range(9)]
        await eventually(lambda: sum(each.done() for each in (*ann, *bob)) == 9)
        await eventually(lambda: held.on == {"a": 4, "b": 4}, what="no lane has more than it may for long")
        assert sum(each.done() for each in ann) == 4
        held.go.set()
    for results in ([each.result() for each in ann], [each.result() for each in bob]):
        assert sum(each is not None for each in results) == 4
