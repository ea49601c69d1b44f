"""StillWanted between an image's last step and its accepted reply: what is reported, and what an answer does."""

import pytest

from tests.eventually import eventually
from tests.unit.worker.rig import Rig, job, running
from worker.holding.types import State

pytestmark = pytest.mark.asyncio


async def test_a_picture_that_waits_for_its_store_is_still_in_hand() -> None:
    """Unheard of, it would be sent out again to run alone, worker by worker, until it failed for want of a worker."""
    rig = Rig()
    rig.bucket.unreachable = True
    async with running(rig):
        await rig.send(job(1))
        await eventually(lambda: [each.state for each in rig.worker.window.held()] == [State.FINISHING])
        rig.wanted.heard.clear()
        await eventually(lambda: len(rig.wanted.heard) >= 3)
        assert all(each.running and each.generation_id == "g1" for each in rig.wanted.heard)
        rig.bucket.unreachable = False
        await rig.idle()
    assert rig.rendered() == ["g1"]


async def test_a_picture_that_waits_for_its_store_can_be_cancelled() -> None:
    rig = Rig()
    rig.bucket.unreachable = True
    async with running(rig):
        await rig.send(job(1), job(2))
        await eventually(lambda: [each.state for each in rig.worker.window.held()] == [State.FINISHING] * 2)
        rig.wanted.unwanted = {"g1"}
        await eventually(lambda: [each.id for each in rig.worker.window.held()] == ["g2/0"])
        assert not rig.bucket.objects
        assert any("store: uploads fail" in each for each in rig.worker.health.reasons())
        rig.bucket.unreachable = False
        await rig.idle()
    assert rig.rendered() == ["g2"]


async def test_trouble_with_the_store_ends_with_the_wish_for_the_last_picture_that_it_does_not_take() -> None:
    rig = Rig()
    rig.bucket.unreachable = True
    async with running(rig):
        await rig.send(job(1))
        await eventually(lambda: any("store: uploads fail" in each for each in rig.worker.health.reasons()))
        rig.wanted.unwanted = {"g1"}
        await rig.idle()
        assert not any("store: uploads fail" in each for each in rig.worker.health.reasons())
