"""Dead letters: what is told of them, and where they go."""

import pytest

from core.dispatch.dead_letters import DeadLetters
from infra.sqs import Outgoing
from schema import messages
from tests.fakes import FakeQueue
from tests.unit.core.rig import Sender
from tests.unit.schema.test_messages import job, rendered

pytestmark = pytest.mark.asyncio


class Queues:
    """`letters` is one look at `dead`."""

    def __init__(self) -> None:
        self.dead, self.jobs, self.replies = FakeQueue("dead"), FakeQueue("jobs"), FakeQueue("replies")
        self.letters = DeadLetters(self.dead, {"jobs": Sender(self.jobs), "replies": Sender(self.replies)})

    async def depths(self) -> tuple[int, int, int]:
        """Of dead, jobs and replies."""
        depths = [await queue.depth() for queue in (self.dead, self.jobs, self.replies)]
        return depths[0].visible, depths[1].visible, depths[2].visible


async def queues(*bodies: bytes) -> Queues:
    made = Queues()
    await made.dead.send([Outgoing(body=body, attributes={"traceparent": "t"}) for body in bodies])
    return made


JOB, REPLY = messages.encode(job()), messages.encode(rendered())


async def test_letters_are_told_without_their_content_and_stay() -> None:
    made = await queues(JOB, REPLY, b"rubbish")
    found = await made.letters.look(100)
    assert [each.origin for each in found] == ["jobs", "replies", ""]
    assert found[0].about.startswith("job gen_")
    assert found[2].about.startswith("unreadable: ")
    assert job().prompts.prompt not in repr([each.about for each in found])
    assert await made.depths() == (0, 0, 0)
    await made.letters.release()
    assert await made.depths() == (3, 0, 0)


async def test_each_goes_back_to_the_queue_it_belongs_on_with_its_attributes() -> None:
    made = await queues(JOB, REPLY, b"rubbish", *[JOB] * 20)
    found = await made.letters.look(100)
    assert await made.letters.send_back(found) == 22
    await made.letters.release()
    assert await made.depths() == (1, 21, 1)
    (again,) = await made.replies.receive(limit=10, wait_s=0, visibility_s=5)
    assert (again.body, dict(again.attributes)) == (REPLY, {"traceparent": "t"})


async def test_what_a_queue_refuses_stays_a_dead_letter() -> None:
    made = await queues(JOB, JOB)
    made.jobs.refuse = 1
    assert await made.letters.send_back(await made.letters.look(100)) == 1
    await made.letters.release()
    assert await made.depths() == (1, 1, 0)


async def test_no_more_than_asked_for_are_looked_at_and_thrown_away() -> None:
    made = await queues(*[b"rubbish"] * 15)
    found = await made.letters.look(12)
    assert len(found) == 12
    assert await made.letters.discard(found) == 12
    await made.letters.release()
    assert await made.depths() == (3, 0, 0)
