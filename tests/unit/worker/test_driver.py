"""Many callers on one engine: who goes together, who fails, who leaves."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.engine_processes import job
from tests.eventually import eventually
from worker.batching.measurements import Measurements
from worker.engine_server.driver import Busy, Driver
from worker.engines.base import Bounds
from worker.engines.contract import Capabilities, Done, Picture, RenderJob, Report, Stepped
from worker.engines.emulated import EmulatedEngine, draw
from worker.engines.errors import BadOutput, EngineLost, LoadFailed, OutOfMemory, Unsupported
from worker.gpu.watchdog import Pulse


class Scripted(EmulatedEngine):
    """Prompts order faults; `gate` holds each step; admissions and batches are written down."""

    def __init__(self, *, join_midway: bool = True, max_batch: int = 4) -> None:
        self.fits: int | None = None
        super().__init__(
            model="m", step_s=0, alpha=0, max_batch=max_batch, bounds=Bounds.square(512), sleep=lambda _: None
        )
        self.capabilities = Capabilities(join_midway=join_midway, evict_one=join_midway, max_batch=max_batch)
        self.gate = threading.Semaphore(0)
        self.admitted: list[list[str]] = []
        self.batches: list[list[str]] = []
        self.resets = 0

    def admit(self, jobs: Sequence[RenderJob]) -> None:
        self.admitted.append([each.id for each in jobs])
        super().admit(jobs)

    def step(self, report: Report) -> Stepped:
        assert self.gate.acquire(timeout=10)
        self.batches.append(sorted(self._members))
        for each, _ in self._members.values():
            match each.prompt:
                case "raise":
                    raise ZeroDivisionError
                case "memory":
                    raise OutOfMemory
                case "lost":
                    raise EngineLost("sticky")
        return replace(super().step(report), fits=self.fits)

    def reset(self) -> None:
        self.resets += 1
        super().reset()

    def free(self) -> None:
        """No step waits any more."""
        self.gate.release(10_000)


class Ended:
    def __init__(self) -> None:
        self.why: list[BaseException | None] = []


@asynccontextmanager
async def driving(engine: EmulatedEngine, *, waiting: int = 64) -> AsyncIterator[tuple[Driver, Ended]]:
    ended = Ended()
    pulse = Pulse(Measurements(), floor_s=30.0, reset_s=30.0)
    driver = Driver(engine, waiting=waiting, pulse=pulse, on_end=ended.why.append)
    thread = threading.Thread(target=driver.run)
    thread.start()
    await eventually(lambda: driver.ready or ended.why)
    try:
        yield driver, ended
    finally:
        driver.stop()
        if isinstance(engine, Scripted):
            engine.free()
        await asyncio.to_thread(thread.join)


def right(picture: object, wanted: RenderJob) -> bool:
    assert isinstance(picture, Picture)
    name = wanted.id.partition("/")[0]
    return picture.rgb == draw(name, 0, wanted.seed, wanted.width, wanted.height)


@pytest.mark.asyncio
async def test_callers_share_batches_and_get_their_own_pictures() -> None:
    engine = Scripted(join_midway=False)
    jobs = [job(number) for number in range(6)]
    async with driving(engine) as (driver, _), asyncio.TaskGroup() as group:
        tasks = [group.create_task(driver.render(each)) for each in jobs]
        await eventually(lambda: len(driver._waiting) + len(driver._members) == 6)
        engine.free()
        for task, each in zip(tasks, jobs, strict=True):
            assert right(await task, each)
    assert max(len(batch) for batch in engine.batches) == 4


@pytest.mark.asyncio
async def test_who_can_join_does_so_midway_unless_another_key_waits_longer() -> None:
    engine = Scripted()
    async with driving(engine) as (driver, _), asyncio.TaskGroup() as group:
        first = group.create_task(driver.render(job(1, steps=5)))
        await eventually(lambda: engine.admitted)
        joins = group.create_task(driver.render(job(2, steps=1)))
        await eventually(lambda: len(driver._waiting) == 1)
        other = group.create_task(driver.render(job(3, steps=1, side=128)))
        behind = group.create_task(driver.render(job(4, steps=1)))
        await eventually(lambda: len(driver._waiting) == 3)
        engine.free()
        await asyncio.gather(first, joins, other, behind)
    assert engine.admitted == [["gen_1/0"], ["gen_2/0"], ["gen_3/0"], ["gen_4/0"]]
    assert ["gen_1/0", "gen_2/0"] in engine.batches


@pytest.mark.parametrize(("fault", "kind"), [("raise", ZeroDivisionError), ("memory", OutOfMemory)])
@pytest.mark.asyncio
async def test_a_picture_fails_by_its_own_fault_only(fault: str, kind: type[Exception]) -> None:
    engine = Scripted()
    jobs = [job(1), job(2, fault), job(3), job(4)]
    async with driving(engine) as (driver, _), asyncio.TaskGroup() as group:
        tasks = [group.create_task(_outcome(driver, each)) for each in jobs]
        await eventually(lambda: len(driver._waiting) + len(driver._members) == 4)
        engine.free()
        outcomes = [await task for task in tasks]
        assert type(outcomes[1]) is kind
        for number in (0, 2, 3):
            assert right(outcomes[number], jobs[number])
        assert right(await driver.render(job(5)), job(5))


@pytest.mark.asyncio
async def test_batches_are_no_larger_than_the_engine_measured_of_its_memory() -> None:
    engine = Scripted()
    engine.fits = 2
    engine.free()
    async with driving(engine) as (driver, _), asyncio.TaskGroup() as group:
        await driver.render(job(1))
        tasks = [group.create_task(driver.render(job(number))) for number in range(2, 10)]
        await asyncio.gather(*tasks)
        assert max(len(batch) for batch in engine.batches) == 2


@pytest.mark.asyncio
async def test_a_batch_that_ran_out_of_memory_is_not_formed_again() -> None:
    engine = Scripted()
    async with driving(engine) as (driver, _), asyncio.TaskGroup() as group:
        tasks = [group.create_task(_outcome(driver, job(number, "memory"))) for number in range(4)]
        await eventually(lambda: len(driver._waiting) + len(driver._members) == 4)
        engine.free()
        assert {type(await task) for task in tasks} == {OutOfMemory}
        largest = max(len(batch) for batch in engine.batches)
        engine.batches.clear()
        await asyncio.gather(*[group.create_task(driver.render(job(number))) for number in range(10, 20)])
        assert max(len(batch) for batch in engine.batches) <= max(1, largest // 2) < largest


async def _outcome(driver: Driver, wanted: RenderJob) -> object:
    try:
        return await driver.render(wanted)
    except Exception as error:  # noqa: BLE001
        return error


@pytest.mark.asyncio
async def test_a_bad_picture_fails_alone() -> None:
    class Blind(EmulatedEngine):
        def decode(self, done: object) -> Picture:
            raise BadOutput("not finite")

    engine = Blind(model="m", step_s=0, alpha=0, max_batch=4, bounds=Bounds.square(512))
    async with driving(engine) as (driver, _):
        with pytest.raises(BadOutput):
            await driver.render(job(1))


@pytest.mark.asyncio
async def test_a_caller_that_goes_away_takes_its_picture_with_it() -> None:
    engine = Scripted(max_batch=1)
    async with driving(engine) as (driver, _), asyncio.TaskGroup() as group:
        gone = group.create_task(driver.render(job(1, steps=100)))
        await eventually(lambda: engine.admitted)
        waits = group.create_task(driver.render(job(2, steps=100)))
        await eventually(lambda: len(driver._waiting) == 1)
        gone.cancel()
        waits.cancel()
        await asyncio.wait({gone, waits})
        engine.free()
        assert right(await driver.render(job(3, steps=1)), job(3))
    assert engine.admitted == [["gen_1/0"], ["gen_3/0"]]
    assert len(engine.batches) <= 4


@pytest.mark.asyncio
async def test_the_same_id_again_waits_until_the_first_has_left() -> None:
    engine = Scripted()
    async with driving(engine) as (driver, _), asyncio.TaskGroup() as group:
        first = group.create_task(driver.render(job(1, steps=3)))
        await eventually(lambda: engine.admitted)
        again = group.create_task(driver.render(job(1, steps=3)))
        await eventually(lambda: len(driver._waiting) == 1)
        engine.free()
        assert right(await first, job(1))
        assert right(await again, job(1))
    assert engine.admitted == [["gen_1/0"], ["gen_1/0"]]


@pytest.mark.asyncio
async def test_whoever_waits_with_the_same_id_and_goes_leaves_the_first_its_picture() -> None:
    engine = Scripted()
    async with driving(engine) as (driver, _), asyncio.TaskGroup() as group:
        first = group.create_task(driver.render(job(1, steps=3)))
        await eventually(lambda: engine.admitted)
        again = group.create_task(driver.render(job(1, steps=3)))
        await eventually(lambda: len(driver._waiting) == 1)
        again.cancel()
        await asyncio.wait({again})
        engine.free()
        assert right(await asyncio.wait_for(first, 20), job(1))
    assert engine.admitted == [["gen_1/0"]]


@pytest.mark.asyncio
async def test_whoever_is_wanted_and_comes_back_as_evicted_begins_again() -> None:
    """An eviction that was meant for the job before it, of the same id."""
    engine = Scripted()
    async with driving(engine) as (driver, _), asyncio.TaskGroup() as group:
        task = group.create_task(driver.render(job(1, steps=3)))
        await eventually(lambda: engine.admitted)
        engine.evict("gen_1/0")
        engine.free()
        assert right(await asyncio.wait_for(task, 20), job(1))
    assert engine.admitted == [["gen_1/0"], ["gen_1/0"]]


@pytest.mark.asyncio
async def test_the_waiting_line_has_an_end() -> None:
    engine = Scripted(max_batch=1)
    async with driving(engine, waiting=2) as (driver, _), asyncio.TaskGroup() as group:
        tasks = [group.create_task(driver.render(job(1)))]
        await eventually(lambda: engine.admitted)
        tasks += [group.create_task(driver.render(job(number))) for number in (2, 3)]
        await eventually(lambda: len(driver._waiting) == 2)
        with pytest.raises(Busy):
            await driver.render(job(4))
        with pytest.raises(Unsupported):
            await driver.render(job(5, side=1024))
        engine.free()
        await asyncio.gather(*tasks)


@pytest.mark.asyncio
async def test_a_lost_device_ends_it_and_everybody_is_told() -> None:
    engine = Scripted(max_batch=1)
    async with driving(engine) as (driver, ended):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_outcome(driver, job(1, "lost"))), group.create_task(_outcome(driver, job(2)))]
            await eventually(lambda: len(driver._waiting) + len(driver._members) == 2)
            engine.free()
        assert all(isinstance(task.result(), EngineLost) for task in tasks)
        assert [type(why) for why in ended.why] == [EngineLost]
        assert not driver.ready
        with pytest.raises(EngineLost):
            await driver.render(job(3))


@pytest.mark.asyncio
async def test_a_model_that_cannot_be_loaded_ends_it() -> None:
    class Unloadable(EmulatedEngine):
        def load(self) -> None:
            raise LoadFailed("no weights")

    engine = Unloadable(model="m", step_s=0, alpha=0, max_batch=4, bounds=Bounds.square(512))
    async with driving(engine) as (_, ended):
        assert [type(why) for why in ended.why] == [LoadFailed]


class Ahead(Scripted):
    """Its device develops pictures beside the next step."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[tuple[str, int]] = []

    def step(self, report: Report) -> Stepped:
        return replace(super().step(report), ahead=True)

    def decode(self, done: Done) -> Picture:
        self.fetched.append((done.job_id, len(self.batches)))
        return super().decode(done)


@pytest.mark.parametrize("fault", ["", "raise"])
@pytest.mark.asyncio
async def test_a_picture_under_way_is_fetched_after_the_next_step_or_begins_anew(fault: str) -> None:
    engine = Ahead()
    async with driving(engine) as (driver, _), asyncio.TaskGroup() as group:
        stays = group.create_task(driver.render(job(1, steps=5)))
        await eventually(lambda: engine.admitted)
        short = group.create_task(driver.render(job(2, steps=1)))
        await eventually(lambda: len(driver._waiting) == 1)
        engine.gate.release()
        await eventually(lambda: len(engine.admitted) == 2)
        joins = asyncio.create_task(driver.render(job(3, fault, steps=5)))
        await eventually(lambda: len(driver._waiting) == 1)
        engine.free()
        assert right(await stays, job(1))
        assert right(await short, job(2))
        if fault:
            with pytest.raises(ZeroDivisionError):
                await joins
        else:
            assert right(await joins, job(3))
    times = sum("gen_2/0" in admitted for admitted in engine.admitted)
    assert times == (2 if fault else 1)
    if not fault:  # the second step is its own; nobody is left beside the last
        assert engine.fetched == [("gen_2/0", 3), ("gen_1/0", 6), ("gen_3/0", 7)]
