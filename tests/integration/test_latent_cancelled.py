"""A running image is cancelled in the real worker with the real latent engine: its slot is free within one step."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from schema import fast
from tests.eventually import eventually
from tests.unit.worker.rig import Rig, generation, job, running
from worker.engines import tiny
from worker.engines.base import Bounds, WeightSource
from worker.engines.contract import RenderJob, Report, Stepped
from worker.engines.devices import Device
from worker.engines.latent.engine import LatentEngine

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # diffusers, numpy 2
]


class Counted(LatentEngine):
    """Counts steps: which was under way, or the last, when an image was evicted, and after which it was gone."""

    steps = 0
    asked_at = 0
    gone_at = 0
    next_at = 0

    def admit(self, jobs: Sequence[RenderJob]) -> None:
        if any(generation(each) == "gnext" for each in jobs):
            self.next_at = self.steps
        super().admit(jobs)

    def step(self, report: Report) -> Stepped:
        self.steps += 1
        stepped = super().step(report)
        if "gcancelled/0" in stepped.evicted:
            self.gone_at = self.steps
        return stepped

    def evict(self, job_id: str) -> None:
        self.asked_at = self.asked_at or self.steps
        super().evict(job_id)


async def test_a_cancelled_image_leaves_the_latent_engine_within_one_step_and_the_next_takes_its_place(
    tmp_path: Path,
) -> None:
    engine = Counted(
        WeightSource(model="m", source=str(tiny.build(tmp_path))),
        Device(name="cpu", threads=1),
        bounds=Bounds.square(64),
        max_batch=1,
    )
    async with running(Rig(engine, hang_s=60.0)) as rig:  # type: ignore[arg-type]
        await rig.send(job("cancelled", steps=150))
        await eventually(lambda: engine.steps > 3, 30)
        await rig.send(job("next", steps=149))
        rig.wanted.unwanted = {"gcancelled"}
        await rig.idle()
    assert engine.asked_at > 0
    assert 0 <= engine.gone_at - engine.asked_at <= 1
    assert engine.gone_at < 150
    assert engine.next_at >= engine.gone_at  # there is one slot
    assert rig.rendered() == ["gnext"]
    assert not rig.of(fast.ImageAttemptFailed)
