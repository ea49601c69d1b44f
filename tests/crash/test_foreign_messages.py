"""Corrupt and foreign messages, put on both queues by hand: quarantined, counted; they stop nobody (faults.md 36)."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest

from schema import fast, pb
from schema.envelope import Envelope, seal, unseal
from schema.messages import encode
from tests.api import story
from tests.cloud import DEAD, JOBS, REPLIES, TEMP
from tests.e2e import invariants
from tests.eventually import until
from tests.stack import Stack

Reply = fast.ImageStarted | fast.ImageRendered | fast.ImageAttemptFailed


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("foreign")) as stack:
        yield stack
        invariants.check(stack)


def rendered(generation_id: str, index: int = 0, attempt_id: str = "att_forged") -> fast.ImageRendered:
    return fast.ImageRendered(
        image=fast.ImageRef(generation_id=generation_id, index=index),
        attempt_id=attempt_id,
        dispatch=1,
        worker_id="nobody",
        temp_key=f"temp/{generation_id}/{index}/{attempt_id}",
        sha256=sha256(b"").digest(),
        size_bytes=1,
        width=64,
        height=64,
        format=pb.OutputFormat(1),
        timings=fast.AttemptTimings(),
        facts=fast.RenderFacts(batch_id="bat_forged", seed=1),
    )


def rubbish(whole: bytes) -> list[bytes | str]:
    """What is not a message: cut, altered, of another time, of another house."""
    envelope = unseal(whole)
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    return [
        b"",
        "not base64 at all: {}[]",
        '{"Records": []}',
        whole[: len(whole) // 2],
        whole[:-1],
        whole + b"\x00",
        bytes(flipped),
        seal(Envelope(type=envelope.type, version=99, payload=envelope.payload)),
        seal(Envelope(type="job.of_tomorrow", version=1, payload=envelope.payload)),
        seal(Envelope(type=envelope.type, version=1, payload=b"\xff" * 40)),
        seal(Envelope(type=envelope.type, version=1, payload=b"")),
    ]


def test_rubbish_on_both_queues_stops_nobody(stack: Stack) -> None:
    client = stack.client()
    ids = [client.submit(seed=k)["id"] for k in range(3)]
    for queue in (JOBS, REPLIES):
        for body in rubbish(encode(rendered("gen_nobody"))):
            if body:
                stack.cloud.put(queue, body)
    ids += [client.submit(seed=k)["id"] for k in range(3)]
    client.succeeded(ids, 30)
    until(lambda: stack.cloud.waiting(REPLIES) == 0, 20, what="the replies queue is drained")
    for admin in (stack.core_admin, stack.worker_admins[0]):
        counted = {name: value for name, value in stack.metrics(admin).items() if "quarantined" in name}
        assert sum(value for name, value in counted.items() if "created" not in name) >= 10, counted


def late(generation_id: str, index: int = 0) -> list[Reply]:
    """One reply of each kind, of an attempt that nobody has heard of."""
    image = fast.ImageRef(generation_id=generation_id, index=index)
    attempt: dict[str, Any] = {"image": image, "attempt_id": "att_late", "dispatch": 1, "worker_id": "nobody"}
    return [
        fast.ImageStarted(**attempt, batch_id="bat_late", batch_size=1),
        rendered(generation_id, index),
        fast.ImageAttemptFailed(**attempt, failure=pb.AttemptFailure(pb.AttemptFailure.MODEL_ERROR)),
    ]


def counted(stack: Stack, outcome: str) -> list[float]:
    """How many replies of each kind core has taken with this outcome."""
    metrics = stack.metrics(stack.core_admin)
    kinds = ("started", "rendered", "attempt_failed")
    return [metrics.get(f'darkroom_core_replies_total{{kind="{kind}",outcome="{outcome}"}}', 0) for kind in kinds]


def test_replies_about_nothing_and_nobody_decide_nothing(stack: Stack) -> None:
    """Unknown generation; one that has succeeded, was cancelled, has expired; index beyond n (faults.md 35)."""
    client = stack.client()
    expired = client.submit(model="slow", num_inference_steps=150, ttl_s=1)["id"]
    cancelled = client.submit(model="slow", num_inference_steps=150)["id"]
    assert client.cancel(cancelled).status == 200
    done = [client.ended(each) for each in (client.submit()["id"], cancelled, expired)]
    assert [body["status"] for body in done] == ["succeeded", "cancelled", "expired"]
    running = client.submit(model="slow", num_inference_steps=150)["id"]
    until(lambda: client.get(running)["status"] == "running", 20, what="one runs")
    until(lambda: stack.cloud.waiting(REPLIES) == 0, 20, what="those that are true are taken")
    log, known = invariants.read_log(stack), [counted(stack, each) for each in ("unknown", "late", "recorded")]
    ended = [message for body in done for message in late(body["id"])]
    beyond = [message for each in (done[0]["id"], running) for message in late(each, index=9)]
    for message in (*late("gen_nobody"), *ended, *beyond):
        stack.cloud.put(REPLIES, encode(message))
    until(lambda: stack.cloud.waiting(REPLIES) == 0, 20, what="the replies queue is drained")
    now = [counted(stack, each) for each in ("unknown", "late", "recorded")]
    more = [[after - before for before, after in zip(*each, strict=True)] for each in zip(known, now, strict=True)]
    assert more == [[1, 1, 1], [5, 5, 5], [0, 0, 0]]
    assert invariants.read_log(stack) == log
    assert [story(client.get(body["id"])) for body in done] == [story(body) for body in done]
    assert client.cancel(running).status == 200


def test_a_reply_whose_object_is_not_there_is_revoked_and_the_image_drawn_again(stack: Stack) -> None:
    """A forged `rendered` wins the decision; its object is missing, so the image goes back on the queue."""
    client = stack.client()
    stack.workers[0].stop()
    body = client.submit(seed=5)
    stack.cloud.put(REPLIES, encode(rendered(body["id"])))
    until(
        lambda: any(
            line.type == "image.attempt_failed" and line.stream == body["id"] for line in invariants.read_log(stack)
        ),
        20,
        what="the decision is revoked",
    )
    stack.restart_worker()
    assert client.ended(body["id"])["status"] == "succeeded"


def test_a_reply_whose_object_is_another_picture_is_revoked_too(stack: Stack) -> None:
    client = stack.client()
    stack.workers[0].stop()
    body = client.submit(seed=6)
    forged = rendered(body["id"])
    stack.cloud.s3.put_object(Bucket=TEMP, Key=forged.temp_key, Body=b"x")
    stack.cloud.put(REPLIES, encode(forged))
    until(
        lambda: any(
            line.type == "image.attempt_failed" and line.stream == body["id"] for line in invariants.read_log(stack)
        ),
        20,
        what="the decision is revoked",
    )
    stack.restart_worker()
    assert client.ended(body["id"])["status"] == "succeeded"


def test_a_job_of_an_ended_generation_is_not_rendered_again(stack: Stack) -> None:
    """As after a redrive from the dead-letter queue (faults.md 33)."""
    client = stack.client()
    stack.workers[0].stop()
    body = client.submit(seed=8)
    until(lambda: stack.cloud.waiting(JOBS) == 1, 20, what="it is on the queue")
    job = stack.cloud.take(JOBS, hidden_s=0)[0]
    stack.restart_worker()
    done = client.ended(body["id"])
    for _ in range(3):
        stack.cloud.put(JOBS, job)
    until(lambda: stack.cloud.waiting(JOBS) == 0, 20, what="the old jobs are taken")
    assert story(client.get(body["id"])) == story(done)
    assert stack.cloud.waiting(DEAD) >= 0
