"""The rig that measures the worker: it must see what is wrong, and measure what it says."""

import asyncio
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from loadtests.bench import worker, worker_memory
from loadtests.bench.engine import TimedEngine
from loadtests.bench.memory import MemoryJobs
from loadtests.bench.rig import Request, Rig, WrongResult, bare, serving
from loadtests.bench.worker_memory import Sample
from schema import fast, messages
from worker.engines.base import Bounds
from worker.engines.contract import Done, Picture, RenderJob
from worker.engines.emulated import EmulatedEngine, draw

REQUEST = Request(model="m", side_px=64, steps=2)


class Gpu(EmulatedEngine):
    def __init__(self, step_s: float = 0.001) -> None:
        super().__init__(model="m", step_s=step_s, alpha=0.3, max_batch=4, bounds=Bounds.square(64))


class Swapping(Gpu):
    """Draws the picture of another image."""

    def decode(self, done: Done) -> Picture:
        picture = super().decode(done)
        rgb = draw(f"gen_{7:026d}", 0, 7, picture.width, picture.height)
        return Picture(width=picture.width, height=picture.height, rgb=rgb)


async def served(engine: EmulatedEngine, *, keep: bool = True, images: int = 12) -> Rig:
    async with serving(engine, keep=keep) as rig:
        rig.feed(REQUEST, range(images))
        await rig.done(deadline_s=30)
    return rig


@pytest.mark.asyncio
@pytest.mark.parametrize("keep", [True, False])
async def test_every_image_goes_through_and_is_checked(keep: bool) -> None:
    rig = await served(Gpu(), keep=keep)
    rig.verify()
    assert rig.engine.images == 12
    assert 0 < rig.engine.busy_s <= rig.engine.seconds


@pytest.mark.asyncio
@pytest.mark.parametrize("keep", [True, False])
async def test_a_picture_of_another_image_is_seen(keep: bool) -> None:
    rig = await served(Swapping(), keep=keep)
    with pytest.raises(WrongResult, match="it is the picture of"):
        rig.verify()


@pytest.mark.asyncio
async def test_an_image_that_never_came_is_missed() -> None:
    rig = await served(Gpu())
    rig.feed(REQUEST, range(12, 13))
    with pytest.raises(WrongResult, match="12: rendered 0 times"):
        rig.verify()


def test_the_bare_loop_renders_all_in_full_batches() -> None:
    engine = Gpu()
    engine.load()
    timed = bare(engine, [REQUEST.job(number) for number in range(10)], batch=4)
    assert (timed.images, timed.steps, timed.seats) == (10, 6, 20)
    assert timed.idle_pct < 50


def test_the_timed_engine_counts_what_was_asked_between_first_and_last() -> None:
    spans: list[tuple[str, tuple[str, ...]]] = []
    timed = TimedEngine(Gpu())
    timed.on_span = lambda name, ids, began_s, ended_s: spans.append((name, tuple(ids)))
    timed.load()
    one, other = REQUEST.job(1), REQUEST.job(2)
    timed.admit([one, other])
    timed.park(other.id)
    timed.step(lambda _: None)
    timed.unpark(other.id)
    finished = timed.step(lambda _: None).finished
    timed.decode(finished[0])
    assert [name for name, _ in spans] == ["admit", "park", "step", "unpark", "step", "decode"]
    assert [ids for name, ids in spans if name == "step"] == [(one.id,), (one.id, other.id)]
    assert timed.mean_batch == 1.5


def bodies(*names: str) -> Sequence[bytes]:
    return [name.encode() for name in names]


@pytest.mark.asyncio
async def test_the_queue_hides_what_it_delivered_and_brings_it_back() -> None:
    jobs = MemoryJobs(0.0)
    jobs.feed(bodies("a", "b"))
    first = await jobs.receive(limit=10, wait_s=0, visibility_s=60)
    assert [each.body for each in first] == [b"a", b"b"]
    assert await jobs.receive(limit=10, wait_s=0, visibility_s=60) == []
    assert await jobs.extend([first[0].receipt, "never"], 0) == [True, False]
    again = await jobs.receive(limit=10, wait_s=1, visibility_s=60)
    assert [(each.body, each.receive_count) for each in again] == [(b"a", 2)]
    await jobs.delete([again[0].receipt, first[1].receipt])
    assert jobs.left() == 0


@pytest.mark.asyncio
async def test_a_long_poll_ends_with_the_first_message_and_a_withheld_one_does_not() -> None:
    jobs = MemoryJobs(0.0)
    jobs.withheld = True
    jobs.feed(bodies("a"))
    async with asyncio.TaskGroup() as group:
        poll = group.create_task(jobs.receive(limit=1, wait_s=30, visibility_s=60))
        await asyncio.sleep(0.01)
        assert not poll.done()
        jobs.release()
    assert [each.body for each in poll.result()] == [b"a"]


@pytest.mark.asyncio
async def test_the_supply_is_drawn_on_as_messages_are_received() -> None:
    made: list[int] = []

    def supply() -> Iterator[bytes]:
        for number in range(100):
            made.append(number)
            yield str(number).encode()

    jobs = MemoryJobs(0.0)
    jobs.feed(supply())
    assert len(made) == 10
    await jobs.receive(limit=4, wait_s=0, visibility_s=60)
    assert len(made) == 14


def remembered(rng: random.Random, *, leak_kb: float, leak_blocks: float) -> list[Sample]:
    """Of a run of 10,000 images: memory that comes in arenas of 1 MiB, and blocks that wait for the collector."""
    return [
        Sample(
            images=images,
            rss_kb=70_000 + 1024 * ((images * leak_kb + rng.gauss(0, 60)) // 1024),
            blocks=round(200_000 + images * leak_blocks + rng.uniform(0, 2_000)),
        )
        for images in range(0, 10_001, 50)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_flat_memory_is_within_noise_and_a_leak_is_not(seed: int) -> None:
    flat = worker_memory.slopes(remembered(random.Random(seed), leak_kb=0.0, leak_blocks=0.0))
    assert worker.missed({"memory": {**flat, "over_bound": []}}) == []
    leaking = worker_memory.slopes(remembered(random.Random(seed), leak_kb=1.0, leak_blocks=1.0))
    assert [each.split()[0] for each in worker.missed({"memory": {**leaking, "over_bound": []}})] == [
        "memory.rss_kb_per_1000_beyond_noise",
        "memory.blocks_per_1000_beyond_noise",
    ]


def test_one_arena_more_is_noise() -> None:
    """Resident memory moves in steps; where a single one falls says nothing of a slope."""
    for at in range(5_500, 9_600, 500):
        samples = [
            Sample(images=images, rss_kb=70_000 + 1024 * (images >= at), blocks=200_000)
            for images in range(5_000, 10_001, 50)
        ]
        assert worker_memory.slopes(samples)["rss_kb_per_1000_beyond_noise"] == 0.0


def test_a_run_that_ends_before_the_window_is_full_is_not_judged() -> None:
    short = worker_memory.slopes(remembered(random.Random(1), leak_kb=9.0, leak_blocks=9.0)[:80])
    assert not [name for name in short if name.endswith("beyond_noise")]


def test_the_slope_is_that_of_the_line() -> None:
    line = worker_memory.fit([(0, 10.0), (10, 30.0), (20, 50.0)])
    assert (line.slope, line.error) == pytest.approx((2.0, 0.0))
    assert worker_memory.fit([(5, 1.0)]).error == math.inf


def test_every_part_of_the_worker_has_a_bound() -> None:
    assert worker_memory.over_bound(dict(worker_memory.BOUNDS)) == []
    assert worker_memory.over_bound({part: bound + 1 for part, bound in worker_memory.BOUNDS.items()}) == sorted(
        worker_memory.BOUNDS
    )
    assert worker_memory.over_bound({"a part that nobody thought of": 1}) == ["a part that nobody thought of"]


def test_floors_that_were_missed_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    good = {"gpu_idle_pct": 1.0, "ratio": 0.99, "demo_model": {"ratio": 0.95}}
    assert worker.missed(good) == []
    assert worker.missed({}) == []
    bad = {
        "gpu_idle_pct": 2.1,
        "ratio": 0.9,
        "demo_model": {"ratio": 0.9},
        "memory": {"unattributed_pct": 0.6, "over_bound": ["upload"]},
    }
    assert [each.split(" ")[0] for each in worker.missed(bad)] == [
        "gpu_idle_pct",
        "ratio",
        "demo_model.ratio",
        "memory.unattributed_pct",
        "upload",
    ]


@pytest.mark.slow
def test_the_command_ends_in_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    worker.main(["--only", "memory", "--quick"])
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["memory"]["images"] == 1000
    assert last["memory"]["over_bound"] == []
    assert set(last["memory"]["depths"]) >= {"waiting", "encode", "upload", "settle", "replies", "delete"}


def test_every_image_has_a_prompt_of_its_own_and_a_later_run_has_others() -> None:
    prompts = [REQUEST.prompt(number) for number in range(10_000)]
    assert len(set(prompts)) == 10_000
    later = replace(REQUEST, first_prompt=100)
    assert later.job(0).prompt == REQUEST.job(100).prompt == prompts[100]
    message = messages.decode(later.message(0))
    assert isinstance(message, fast.ImageJob)
    assert message.prompts.prompt == prompts[100]


def test_jobs_of_both_sides_are_the_same_image() -> None:
    job: RenderJob = REQUEST.job(3)
    assert (job.id, job.seed) == (f"gen_{3:026d}/0", 3)
