"""A whole worker whose model is on a foreign server that is overloaded, misnamed, or broken by one picture."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from schema import pb
from tests.eventually import eventually
from tests.images_standin import Seen, standin
from tests.unit.worker.rig import MODEL, Rig, job, running, some
from worker.engines.http import HttpEngine
from worker.engines.http_calls import Patience
from worker.errors import EngineAway


@asynccontextmanager
async def serving(outage_s: float) -> AsyncIterator[tuple[Rig, Seen]]:
    with standin() as (base, seen):
        engine = HttpEngine(
            model=MODEL,
            base=base,
            patience=Patience(timeout_s=30.0, attempts=2, first_wait_s=0.01),
            outage_s=outage_s,
            beat_s=0.05,
            rng=lambda: 0.1,
        )
        try:
            yield Rig(cast("Any", engine), drain_s=20.0), seen
        finally:
            await asyncio.to_thread(engine.unload)


@pytest.mark.parametrize("status", [503, 404])
@pytest.mark.asyncio
async def test_a_healthy_server_that_answers_nobody_for_a_while_loses_no_picture(status: int) -> None:
    async with serving(outage_s=60.0) as (rig, seen):
        seen.answer = status
        async with running(rig):
            await rig.send(*some(range(3)))
            await eventually(lambda: len(seen.bodies) >= 12, 60, what="several rounds of three requests")
            seen.answer = 0
            await eventually(lambda: len(rig.rendered()) == 3, 60)
            await rig.idle()
        assert rig.failed() == {}


@pytest.mark.parametrize("status", [503, 404])
@pytest.mark.asyncio
async def test_a_server_that_never_answers_ends_the_worker_and_convicts_nobody(status: int) -> None:
    async with serving(outage_s=0.3) as (rig, seen):
        seen.answer = status
        with pytest.RaisesGroup(EngineAway, allow_unwrapped=True, flatten_subgroups=True):
            async with running(rig):
                await rig.send(*some(range(3)))
                await asyncio.Event().wait()
        rig.close()
        assert set(rig.failed().values()) <= {int(pb.AttemptFailure.DRAINED)}
        assert not rig.rendered()


@pytest.mark.asyncio
async def test_a_picture_that_breaks_the_connection_fails_alone() -> None:
    async with serving(outage_s=60.0) as (rig, _), running(rig):
        poison = job("bad")
        poison.prompts.prompt = "fault:reset"
        await rig.send(*some(range(3)), poison)
        await eventually(lambda: len(rig.rendered()) == 3 and rig.failed(), 60)
        assert rig.failed() == {"gbad": int(pb.AttemptFailure.BAD_OUTPUT)}
        await rig.idle()
