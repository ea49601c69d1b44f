"""Items wait for a call only while all callers are busy; each gets its own result; nobody is left waiting."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.core_client.coalescer import Coalescer
from gateway.errors import Broken, Unavailable
from tests.eventually import eventually


class Line:
    """A call that is held until told, and remembers."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.go = asyncio.Event()
        self.error: BaseException | None = None
        self.short = 0

    def has_batches(self, number: int) -> Callable[[], bool]:
        return lambda: len(self.batches) == number

    async def call(self, items: Sequence[int], _deadline: float) -> Sequence[str]:
        self.batches.append(list(items))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.go.wait()
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        return [f"r{item}" for item in items][self.short :]


@asynccontextmanager
async def coalescing(
    line: Line, *, max_items: int = 100, max_waiting: int = 1000, timeout_s: float = 10
) -> AsyncIterator[Coalescer[int, str]]:
    made = Coalescer(line.call, max_items=max_items, max_waiting=max_waiting, timeout_s=timeout_s)
    async with asyncio.TaskGroup() as group:
        senders = [group.create_task(made.run(), name=f"sender {number}") for number in range(2)]
        yield made
        for sender in senders:
            sender.cancel()


@pytest.mark.asyncio
async def test_what_arrives_while_two_calls_are_under_way_goes_out_together() -> None:
    line = Line()
    async with coalescing(line) as put, asyncio.TaskGroup() as group:
        tasks = [group.create_task(put.put(0, "ann"))]
        await eventually(lambda: len(line.batches) == 1)
        tasks.append(group.create_task(put.put(1, "ann")))
        await eventually(lambda: len(line.batches) == 2)
        tasks += [group.create_task(put.put(number, "ann")) for number in range(2, 50)]
        await eventually(lambda: put.waiting == 48)
        line.go.set()
        assert [await task for task in tasks] == [f"r{number}" for number in range(50)]
    assert line.batches == [[0], [1], list(range(2, 50))]
    assert line.most_at_once == 2


@pytest.mark.asyncio
async def test_no_call_has_more_items_than_it_may() -> None:
    line = Line()
    line.go.set()
    async with coalescing(line, max_items=7) as put, asyncio.TaskGroup() as group:
        tasks = [group.create_task(put.put(number, "ann")) for number in range(40)]
    assert [task.result() for task in tasks] == [f"r{number}" for number in range(40)]
    assert max(len(batch) for batch in line.batches) == 7
    assert sorted(item for batch in line.batches for item in batch) == list(range(40))


@pytest.mark.asyncio
async def test_a_failed_call_fails_its_items_and_the_next_goes_on() -> None:
    line = Line()
    line.go.set()
    line.error = Unavailable()
    async with coalescing(line) as put:
        with pytest.raises(Unavailable):
            await put.put(1, "ann")
        line.error = None
        assert await put.put(2, "ann") == "r2"
        line.short = 1
        with pytest.raises(Broken):
            await put.put(3, "ann")


@pytest.mark.asyncio
async def test_a_full_line_refuses_at_once() -> None:
    line = Line()
    async with coalescing(line, max_waiting=2) as put, asyncio.TaskGroup() as group:
        for number in range(2):
            group.create_task(put.put(number, "ann"))
            await eventually(line.has_batches(number + 1))
        for number in (2, 3):
            group.create_task(put.put(number, "ann"))
        await eventually(lambda: put.waiting == 2)
        with pytest.raises(Unavailable):
            await put.put(4, "ann")
        line.go.set()


@pytest.mark.asyncio
async def test_what_waited_too_long_is_never_sent() -> None:
    line = Line()
    async with coalescing(line, timeout_s=0.05) as put, asyncio.TaskGroup() as group:
        for number in range(2):
            group.create_task(put.put(number, "ann"))
            await eventually(line.has_batches(number + 1))
        late = group.create_task(_refused(put, 2))
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.06
        await eventually(lambda: loop.time() > end)
        line.go.set()
        await late
    assert line.batches == [[0], [1]]


@pytest.mark.asyncio
async def test_nothing_is_sent_with_too_little_time_to_be_answered() -> None:
    left: list[float] = []
    loop = asyncio.get_running_loop()
    go = asyncio.Event()

    async def call(items: Sequence[int], deadline: float) -> Sequence[str]:
        left.append(deadline - loop.time())
        await go.wait()
        return [str(item) for item in items]

    made = Coalescer(call, max_items=100, max_waiting=1000, timeout_s=0.4)
    async with asyncio.TaskGroup() as group:
        sender = group.create_task(made.run())
        first = group.create_task(made.put(1, "ann"))
        await eventually(lambda: len(left) == 1)
        late = group.create_task(_refused(made, 2))
        end = loop.time() + 0.25
        await eventually(lambda: loop.time() > end)
        fresh = group.create_task(made.put(3, "ann"))
        await eventually(lambda: made.waiting == 2)
        go.set()
        await late
        assert (await first, await fresh) == ("1", "3")
        sender.cancel()
    assert len(left) == 2
    assert min(left) >= 0.2, "a mate that waited long shortens nobody's time"


async def _refused(put: Coalescer[int, str], item: int) -> None:
    with pytest.raises(Unavailable):
        await put.put(item, "ann")


@pytest.mark.asyncio
async def test_a_caller_that_goes_away_takes_nobody_with_it() -> None:
    line = Line()
    async with coalescing(line) as put, asyncio.TaskGroup() as group:
        tasks = [group.create_task(put.put(number, "ann")) for number in range(3)]
        await eventually(lambda: line.batches == [[0, 1, 2]])
        tasks[1].cancel()
        await asyncio.wait({tasks[1]})
        line.go.set()
        assert (await tasks[0], await tasks[2]) == ("r0", "r2")


@pytest.mark.asyncio
async def test_at_the_end_nobody_is_left_waiting() -> None:
    line = Line()
    async with asyncio.TaskGroup() as group:
        async with coalescing(line) as put:
            task = group.create_task(_refused(put, 1))
            await eventually(lambda: line.batches == [[1]])
    assert task.done()


@pytest.mark.asyncio
async def test_nobody_waits_behind_another_s_crowd_or_is_refused_for_it() -> None:
    line = Line()
    async with coalescing(line, max_items=10, max_waiting=50) as put, asyncio.TaskGroup() as group:
        for number in range(2):
            group.create_task(put.put(number, "ann"))
            await eventually(line.has_batches(number + 1))
        ann = [group.create_task(_result_of(put, number, "ann")) for number in range(100, 150)]
        await eventually(lambda: put.waiting == 50)
        assert await _result_of(put, 1000, "ann") is None
        bob = [group.create_task(_result_of(put, number, "bob")) for number in range(25)]
        await eventually(lambda: sum(each.done() for each in ann) == 25, what="the newest of the larger crowd go")
        assert await _result_of(put, 1001, "bob") is None
        line.go.set()
    assert [each.result() for each in bob] == [f"r{number}" for number in range(25)]
    assert [each.result() for each in ann] == [f"r{number}" for number in range(100, 125)] + [None] * 25
    assert sorted(line.batches[2]) == [*range(5), *range(100, 105)], "tenants take turns in each batch"


async def _result_of(put: Coalescer[int, str], item: int, owner: str) -> str | None:
    try:
        return await put.put(item, owner)
    except Unavailable:
        return None
