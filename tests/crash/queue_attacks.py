"""What `test_queue_faults` does to queues beyond `fault_actions`: counts what they accept, serves each worker once."""

import asyncio
from base64 import b64decode
from collections import Counter

from schema import fast
from schema.messages import decode
from tests import fault_actions as a
from tests.cloud import JOBS
from tests.fault_cloud import Call, Reply


class Counting:
    """SendMessageBatch, three entries of each batch Failed `times` times; counts what the queue has accepted."""

    def __init__(self, times: int) -> None:
        self._fail = a.some_failed(3)
        self._times = times
        self.accepted: Counter[tuple[str, ...]] = Counter()
        self.failed: Counter[tuple[str, ...]] = Counter()

    async def __call__(self, call: Call) -> Reply | None:
        names = {each["Id"]: name(body) for each, body in zip(call.json()["Entries"], a.bodies(call), strict=True)}
        answer = await (self._fail(call) if self._times > 0 else call.forward())
        assert answer is not None
        self._times -= 1
        said = answer.json()
        self.accepted.update(names[each["Id"]] for each in said["Successful"])
        self.failed.update(names[each["Id"]] for each in said.get("Failed", []))
        return answer


def name(body: bytes) -> tuple[str, ...]:
    """What tells one message from all others: its kind, image, and dispatch or attempt."""
    message = decode(body)
    attempt = str(message.dispatch) if isinstance(message, fast.ImageJob) else message.attempt_id
    return type(message).__name__, message.image.generation_id, str(message.image.index), attempt


class OnceEach:
    """ReceiveMessage: a worker to whom the long job was delivered gets no more; what earlier tests have left passes.
    Workers are told apart by their access keys.
    """

    def __init__(self, steps: int) -> None:
        self.polled: set[str] = set()
        """Whose next answers all pass here: a long poll that began earlier does not."""
        self.served: set[str] = set()
        self._steps = steps

    async def __call__(self, call: Call) -> Reply:
        if JOBS not in call.json()["QueueUrl"]:
            return await call.forward()
        worker = call.headers["User-Agent"].partition(" app/")[2].partition(" ")[0]
        self.polled.add(worker)
        if worker in self.served:
            await asyncio.sleep(0.3)  # a short poll in vain
            return Reply(status=200, headers={"Content-Type": "application/x-amz-json-1.0"}, body=b"{}")
        found = await call.forward()
        if any(_steps(message["Body"]) == self._steps for message in found.json().get("Messages", ())):
            self.served.add(worker)
        return found


def _steps(body: str) -> int:
    job = decode(b64decode(body))
    return job.spec.num_inference_steps if isinstance(job, fast.ImageJob) else 0
