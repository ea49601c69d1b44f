"""The reason for not being ready has the service's own error name in it, since each needs another repair."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from infra.retry import Permanent
from infra.sqs import Received
from tests.eventually import eventually
from tests.fakes import FakeBucket, FakeQueue
from tests.unit.worker.rig import Rig, job, running
from worker.assembly import Tuning, Worker
from worker.ports import Reply

pytestmark = pytest.mark.asyncio
NAMES = ["ExpiredToken", "AccessDenied", "InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed"]
TUNING = Tuning(worker_id="w", receive_wait_s=0, drain_s=1.0)


class Refusing(FakeBucket):
    why = ""

    async def put(self, key: str, data: bytes, *, content_type: str, sha256: bytes) -> None:
        if self.why:
            raise Permanent(f"put temp: {self.why}")
        await FakeBucket.put(self, key, data, content_type=content_type, sha256=sha256)


class Closed(FakeQueue):
    why = ""

    async def receive(self, *, limit: int, wait_s: int, visibility_s: int) -> list[Received]:
        if self.why:
            raise Permanent(f"receive jobs: {self.why}")
        return await super().receive(limit=limit, wait_s=wait_s, visibility_s=visibility_s)


class Mute:
    def __init__(self, rig: Rig) -> None:
        self.why = ""
        self._rig = rig

    async def send(self, sent: Sequence[Reply]) -> Sequence[bool]:
        if self.why:
            raise Permanent(f"send replies: {self.why}")
        return await self._rig.replies.send(sent)


@pytest.mark.parametrize("name", NAMES)
async def test_readiness_and_log_name_the_cause(name: str) -> None:
    rig = Rig()
    store, jobs, replies = Refusing(), Closed("jobs"), Mute(rig)
    rig.ports = replace(rig.ports, temp=store, jobs=jobs, replies=replies)
    rig.jobs = jobs
    rig.worker = Worker(rig.ports, TUNING)

    def reasons() -> str:
        return "; ".join(rig.worker.health.reasons())

    with capture_logs() as lines:
        async with running(rig):
            jobs.why = name
            await eventually(lambda: f"receive jobs: {name}" in reasons())
            jobs.why, store.why = "", name
            await rig.send(job(1))
            await eventually(lambda: f"put temp: {name}" in reasons())
            replies.why, store.why = name, ""
            await eventually(lambda: f"send replies: {name}" in reasons())
            replies.why = ""
            await rig.idle()
    for call in ("receive jobs", "put temp", "send replies"):
        assert any(f"{call}: {name}" in str(line.get("reason")) for line in lines)
