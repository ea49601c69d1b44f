"""Models that are loaded when an image needs them, and engines that are reset."""

import asyncio
import threading

import pytest

from schema import pb
from tests.unit.worker.rig import FaultyEngine, Rig, job, running, some
from worker.engines.contract import BatchKey, RenderJob
from worker.engines.errors import Unsupported
from worker.gpu.watchdog import Hung

pytestmark = pytest.mark.asyncio


class Choosy(FaultyEngine):
    """Learns only from its files that it cannot do 13 steps."""

    def key(self, job: RenderJob) -> BatchKey:
        if self.loaded and job.num_inference_steps == 13:
            raise Unsupported("not 13 steps")
        return super().key(job)


async def test_what_a_model_refuses_once_it_is_loaded_is_reported_and_the_others_go_on() -> None:
    async with running(Rig(Choosy(), preload=False)) as rig:
        await rig.send(job("first", steps=13), *some(range(3)), job("last", steps=13))
        await rig.idle()
        await rig.send(job("later", steps=13), job(4))
        await rig.idle()
    assert sorted(rig.rendered()) == ["g0", "g1", "g2", "g4"]
    assert rig.failed() == dict.fromkeys(["gfirst", "glast", "glater"], pb.AttemptFailure.UNSUPPORTED)


class Loading(FaultyEngine):
    """Until cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def load(self) -> None:
        self.released.wait(60)


async def test_a_load_that_hangs_ends_the_worker_and_gives_back_what_waits_for_it() -> None:
    engine = Loading()
    rig = Rig(engine, preload=False, hang_s=0.1, load_s=0.4, visibility_s=60)
    await rig.send(*some(range(4)))
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(20):
            await rig.worker.run(asyncio.Event().wait)
    engine.released.set()
    rig.close()
    assert caught.group_contains(Hung, match="no loaded model")
    depth = await rig.jobs.depth()
    assert (depth.visible, depth.in_flight) == (4, 0)
    assert not rig.replies.accepted


class Stuck(FaultyEngine):
    """Never ready again after a failure."""

    def __init__(self) -> None:
        super().__init__()
        self.raises = {"g1"}
        self.released = threading.Event()

    def reset(self) -> None:
        self.released.wait(60)


async def test_an_engine_that_hangs_while_it_is_made_ready_again_ends_the_worker() -> None:
    engine = Stuck()
    rig = Rig(engine, hang_s=0.2, reset_s=0.4, drain_s=3.0)
    await rig.send(*some(range(2)))
    with pytest.raises(ExceptionGroup) as caught:
        await rig.worker.run(asyncio.Event().wait)
    engine.released.set()
    rig.close()
    assert caught.group_contains(Hung)
