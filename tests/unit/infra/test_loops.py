"""A loop that ends before the service stops it ends the service, in whatever way it ended."""

import asyncio

import pytest

from infra.loops import Loop, LoopEnded, Loops


async def endless() -> None:
    await asyncio.Event().wait()


async def cancelled_by_a_time_out() -> None:
    """As under Python 3.11.2 in a task whose cancellation somebody has not taken back."""
    raise asyncio.CancelledError


async def returning() -> None:
    await asyncio.sleep(0)


async def failing() -> None:
    await asyncio.sleep(0)
    raise ZeroDivisionError


async def serve(loop: Loop, *, cancel: bool = False, fail: bool = False) -> None:
    async with asyncio.timeout(10), Loops() as loops:
        loops.run("service.other", endless)
        beat = loops.run("service.beat", loop)
        await asyncio.sleep(0)
        if cancel:
            beat.cancel()
        if fail:
            raise ZeroDivisionError
        await asyncio.Event().wait()


@pytest.mark.asyncio
@pytest.mark.parametrize(("loop", "how"), [(cancelled_by_a_time_out, "cancelled"), (returning, "returned")])
async def test_a_loop_that_ends_without_an_error_ends_the_service(loop: Loop, how: str) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await serve(loop)
    assert [(type(each), str(each)) for each in caught.value.exceptions] == [(LoopEnded, f"service.beat ended ({how})")]


@pytest.mark.asyncio
async def test_a_loop_cancelled_from_elsewhere_ends_the_service() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await serve(endless, cancel=True)
    assert [str(each) for each in caught.value.exceptions] == ["service.beat ended (cancelled)"]


@pytest.mark.asyncio
async def test_a_loop_that_raises_is_the_only_error() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await serve(failing)
    assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]


@pytest.mark.asyncio
async def test_an_error_of_the_service_itself_is_the_only_one() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await serve(endless, fail=True)
    assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]


@pytest.mark.asyncio
async def test_stopped_loops_raise_nothing() -> None:
    async with Loops() as loops:
        tasks = [loops.run(f"service.{number}", endless) for number in range(3)]
        await asyncio.sleep(0)
        loops.stop()
    assert all(task.cancelled() for task in tasks)


@pytest.mark.asyncio
async def test_loops_stopped_before_their_first_step_raise_nothing() -> None:
    async with Loops() as loops:
        loops.run("service.beat", endless)
        loops.stop()


@pytest.mark.asyncio
async def test_a_loop_may_return_when_it_was_told_to() -> None:
    told = asyncio.Event()

    async def until_told() -> None:
        await told.wait()

    async with asyncio.timeout(10), Loops() as loops:
        task = loops.run("service.receive", until_told, may_return=told.is_set)
        told.set()
        await task
        loops.stop()


@pytest.mark.asyncio
@pytest.mark.parametrize("waits_in_the_block", [True, False])
async def test_a_cancelled_service_is_cancelled_and_nothing_else(*, waits_in_the_block: bool) -> None:
    async def service() -> None:
        async with Loops() as loops:
            loops.run("service.beat", endless)
            if waits_in_the_block:
                await asyncio.Event().wait()

    task = asyncio.create_task(service())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
