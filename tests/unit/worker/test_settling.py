"""Behind the upload: replies that wait hold no pictures, and messages that cannot be deleted hold up no reply."""

import gc
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

from schema import fast
from tests.eventually import eventually
from tests.unit.worker.rig import Rig, decoded, running, some
from worker.engines.contract import Picture
from worker.ports import Reply
from worker.service import Tuning, Worker
from worker.types import Encoded

pytestmark = pytest.mark.asyncio
TUNING = Tuning(worker_id="w", receive_wait_s=1, drain_s=3.0)


def pictures() -> int:
    return sum(isinstance(each, Picture | Encoded) for each in gc.get_objects())


async def test_what_waits_for_its_reply_holds_no_picture() -> None:
    rig = Rig()
    accepts = False

    async def send(sent: Sequence[Reply]) -> Sequence[bool]:
        now = [each for each in sent if accepts or not isinstance(decoded(each.body), fast.ImageRendered)]
        if now:
            await rig.replies.send(now)
        return [each in now for each in sent]

    rig.ports = replace(rig.ports, replies=SimpleNamespace(send=send))
    rig.worker = Worker(rig.ports, replace(TUNING, encoders=1, uploads=1))
    before = pictures()
    async with running(rig):
        await rig.send(*some(range(20)))
        await eventually(lambda: len(rig.bucket.objects) == 20)
        assert not rig.rendered()
        assert pictures() - before <= 2 * 2  # the last one of each task
        accepts = True
        await rig.idle()
    assert len(rig.rendered()) == 20
