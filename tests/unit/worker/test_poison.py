"""What one image does to itself it must not do to its mates."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from infra.telemetry import without_error_text
from schema import fast, pb
from tests.eventually import eventually
from tests.unit.worker.rig import FaultyEngine, Rig, generation, job, running, some
from worker.engines.contract import Done, Picture, RenderJob, Report, Stepped
from worker.engines.errors import EngineLost, OutOfMemory

pytestmark = pytest.mark.asyncio
F = pb.AttemptFailure


async def test_the_one_that_raises_fails_and_its_seven_mates_succeed() -> None:
    engine = FaultyEngine()
    engine.raises = {"g3"}
    async with running(Rig(engine)) as rig:
        await rig.send(*some(range(8)))
        await rig.idle()
    assert sorted(rig.rendered()) == ["g0", "g1", "g2", "g4", "g5", "g6", "g7"]
    assert rig.failed() == {"g3": F.MODEL_ERROR}
    assert ["g3"] in engine.admitted  # it failed alone before it was blamed
    assert 1 <= rig.metric("batches_halved_total", reason="model_error") <= 3


class Full(FaultyEngine):
    """The process, not the device, has no memory left for one of them."""

    def step(self, report: Report) -> Stepped:
        if any(generation(job) == "g1" for job, _ in self._members.values()):
            raise MemoryError
        return super().step(report)

    def decode(self, done: Done) -> Picture:
        if done.job_id.startswith("g2"):
            raise MemoryError
        return super().decode(done)


async def test_a_lack_of_host_memory_is_out_of_memory() -> None:
    async with running(Rig(Full())) as rig:
        await rig.send(*some(range(4)))
        await rig.idle()
    assert sorted(rig.rendered()) == ["g0", "g3"]
    assert rig.failed() == {"g1": F.OUT_OF_MEMORY, "g2": F.OUT_OF_MEMORY}


async def test_two_culprits_in_one_batch_are_both_found() -> None:
    engine = FaultyEngine()
    engine.raises = {"g0", "g7"}
    async with running(Rig(engine)) as rig:
        await rig.send(*some(range(8)))
        await rig.idle()
    assert len(rig.rendered()) == 6
    assert set(rig.failed()) == {"g0", "g7"}


async def test_a_picture_of_nan_fails_only_its_own_image_and_runs_nothing_again() -> None:
    engine = FaultyEngine()
    engine.nan = {"g1"}
    async with running(Rig(engine)) as rig:
        await rig.send(*some(range(4)))
        await rig.idle()
    assert sorted(rig.rendered()) == ["g0", "g2", "g3"]
    assert rig.failed() == {"g1": F.BAD_OUTPUT}
    assert sum(len(batch) for batch in engine.admitted) == 4


async def test_out_of_memory_halves_the_batch_and_the_cap_is_remembered() -> None:
    engine = FaultyEngine()
    engine.fits = 3
    async with running(Rig(engine)) as rig:
        await rig.send(*some(range(60)))
        await rig.idle()
        learned = engine.ran_out
        await rig.send(*some(range(60, 120)))
        await rig.idle()
    assert len(rig.rendered()) == 120
    assert not rig.failed()
    assert 1 <= learned <= 3  # 8 halved to 4, and 4 to 2
    assert engine.ran_out == learned


async def test_no_batch_is_larger_than_what_the_engine_measured_of_its_memory() -> None:
    engine = FaultyEngine(step_s=0.01)  # long against the noise: the curve must say that batching helps
    engine.fits = engine.says = 3
    async with running(Rig(engine)) as rig:
        await rig.send(job("first"))  # a single image: nothing runs out of memory, and the engine says what fits
        await rig.idle()
        await rig.send(*some(range(40)))
        await rig.idle()
        assert len(rig.rendered()) == 41
        assert engine.ran_out == 0
        engine.fits, engine.says = 1_000, 8
        await rig.send(*some(range(50, 90)))
        await rig.idle()
        assert rig.metric("batch_size_bucket", le="4.0") < rig.metric("batch_size_count")


class Cramped(FaultyEngine):
    """Steps of many fit into memory, but there is no room to decode while another one runs."""

    def decode(self, done: Done) -> Picture:
        if self.running > len(self._parked):
            self.ran_out += 1
            raise OutOfMemory
        return super().decode(done)


async def test_out_of_memory_while_others_are_there_convicts_nobody() -> None:
    engine = Cramped()
    async with running(Rig(engine)) as rig:
        await rig.send(*[job(number, steps=2 + 3 * number) for number in range(6)])
        await rig.idle()
        assert engine.ran_out
        assert sorted(rig.rendered()) == [f"g{number}" for number in range(6)]
        assert not rig.failed()
        learned = engine.ran_out
        await rig.send(*[job(number, steps=2 + 3 * number) for number in range(10, 16)])
        await rig.idle()
    assert engine.ran_out == learned  # the cap is remembered


async def test_out_of_memory_alone_is_reported() -> None:
    engine = FaultyEngine()
    engine.fits = 0
    async with running(Rig(engine)) as rig:
        await rig.send(job(1))
        await rig.idle()
    assert rig.failed() == {"g1": F.OUT_OF_MEMORY}


async def test_members_that_had_left_before_the_crash_are_not_rendered_again() -> None:
    engine = FaultyEngine(step_s=0.01)
    async with running(Rig(engine)) as rig:
        await rig.send(job("early", steps=1), job("late", steps=150), job("bad", steps=150))
        await eventually(lambda: "gearly" in rig.rendered())
        engine.raises = {"gbad"}
        await rig.idle()
    assert sorted(rig.rendered()) == ["gearly", "glate"]
    assert rig.failed() == {"gbad": F.MODEL_ERROR}
    assert sum("gearly" in batch for batch in engine.admitted) == 1


async def test_a_lost_device_is_reported_and_ends_the_worker() -> None:
    engine = FaultyEngine()
    engine.loses = {"g1"}
    rig = Rig(engine)
    with pytest.RaisesGroup(EngineLost, allow_unwrapped=True, flatten_subgroups=True):
        async with running(rig):
            await rig.send(*some(range(3)))
            await eventually(lambda: "g1" in rig.failed())
    assert rig.failed()["g1"] == F.MODEL_ERROR
    assert set(rig.failed().values()) <= {int(F.MODEL_ERROR), int(F.DRAINED)}  # who was announced only
    assert (await rig.jobs.depth()).in_flight == 0


class Unforgetting(FaultyEngine):
    """A device error that was not recognised: it shows again when memory is freed."""

    def reset(self) -> None:
        if self.raises:
            raise RuntimeError("what was rendered: a secret prompt")
        super().reset()


async def test_an_engine_that_cannot_be_made_ready_again_ends_the_worker_with_its_last_words() -> None:
    engine = Unforgetting()
    engine.raises = {"g1"}
    rig = Rig(engine)
    with pytest.RaisesGroup(EngineLost, allow_unwrapped=True, flatten_subgroups=True):
        async with asyncio.timeout(30):
            async with running(rig):
                await rig.send(*some(range(3)))
                await asyncio.Event().wait()
    assert rig.failed()["g1"] == F.MODEL_ERROR
    assert (await rig.jobs.depth()).in_flight == 0


async def test_a_lost_device_ends_the_worker_even_if_nobody_can_be_told() -> None:
    """More images ran than the line holds, and no reply is accepted: the process ends all the same."""
    engine = FaultyEngine(step_s=0.1, max_batch=200)
    rig = Rig(engine, window_images=200, line_images=1)

    def break_down(jobs: Sequence[RenderJob]) -> None:
        if engine.running + len(jobs) > 4:
            engine.loses = {generation(each) for each in jobs}
            rig.replies.queue.unreachable = True

    engine.on_admit = break_down
    with pytest.RaisesGroup(EngineLost, allow_unwrapped=True, flatten_subgroups=True):
        async with asyncio.timeout(30):
            async with running(rig):
                await rig.send(*some(range(160), steps=10))
                await asyncio.Event().wait()
    assert not rig.failed()


@pytest.mark.parametrize(
    "picture", [Picture(width=64, height=64, rgb=b"1" * 9), Picture(width=1, height=1, rgb=b"123")]
)
async def test_what_is_not_of_the_asked_size_is_no_picture(picture: Picture) -> None:
    engine = FaultyEngine()
    engine.decode = lambda done: picture  # type: ignore[method-assign]
    async with running(Rig(engine)) as rig:
        await rig.send(job(1))
        await rig.idle()
    assert rig.failed() == {"g1": F.BAD_OUTPUT}
    assert rig.of(fast.ImageAttemptFailed)[0].detail.startswith("the picture is")


async def test_a_worker_that_is_still_loading_leaves_the_jobs_to_others() -> None:
    class Slow(FaultyEngine):
        def load(self) -> None:
            begun.set()
            go_on.wait()
            super().load()

    begun, go_on = threading.Event(), threading.Event()
    async with running(Rig(Slow())) as rig:
        await rig.send(*some(range(3)))
        await eventually(begun.is_set)
        for _ in range(100):  # turns enough to receive
            await asyncio.sleep(0)
        depth = await rig.jobs.depth()
        go_on.set()
        assert (depth.visible, depth.in_flight) == (3, 0)
        await rig.idle()
    assert sorted(rig.rendered()) == ["g0", "g1", "g2"]


async def test_details_and_logs_hold_no_text_of_the_models_error() -> None:
    """Save in the one field that telemetry drops unless it is asked for."""
    engine = FaultyEngine()
    engine.raises = {"g1"}
    with capture_logs() as lines:
        async with running(Rig(engine)) as rig:
            await rig.send(job(1))
            await rig.idle()
    detail = rig.of(fast.ImageAttemptFailed)[0].detail
    assert detail == "the model raised ZeroDivisionError"
    assert [line["event"] for line in lines if "secret" in str(line)] == ["model.raised"]
    assert "secret" not in str([without_error_text(None, "", dict(line)) for line in lines])
