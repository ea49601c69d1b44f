"""The worker dies by SIGKILL at each of its named places (faults.md 37); its successor finishes everything, once."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.domain.events import ImageDispatched
from tests.api import Body
from tests.e2e import invariants
from tests.eventually import until
from tests.fault_cloud import Call, FaultyCloud, Rule
from tests.stack import Stack

PLACES = [
    "worker.received",
    "worker.validated",
    "worker.batched",
    "worker.gpu_mid",
    "worker.decoded",
    "worker.encoded",
    "worker.upload_mid",
    "worker.uploaded",
    "worker.reply_sent",
    "worker.deleted",
]
SLOW: Body = {"model": "slow", "num_inference_steps": 50}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("worker"), visibility_s=2) as stack:
        yield stack
        invariants.check(stack)
        stack.core.stop()
        stack.command("core", "verify")
        stack.restart_core()


def deaths(stack: Stack, ids: list[str]) -> list[str]:
    """Worker ids of all starts of these generations beyond the first of each image."""
    begun: dict[tuple[str, int], int] = {}
    for line in invariants.read_log(stack):
        if line.type == "image.started" and line.stream in ids:
            key = line.stream, line.event.index  # type: ignore[union-attr]
            begun[key] = begun.get(key, 0) + 1
    return [f"{stream}/{index}: {count}" for (stream, index), count in begun.items() if count > 2]


def finish(stack: Stack, ids: list[str]) -> None:
    """A clean worker again; all succeed, and no image was begun more than twice for one death."""
    stack.restart_worker()
    stack.client().succeeded(ids, 40)
    assert not deaths(stack, ids)
    invariants.check(stack, drained=False)


@pytest.mark.parametrize("place", PLACES)
def test_a_worker_killed_at(stack: Stack, place: str) -> None:
    client = stack.client()
    stack.workers[0].stop()
    nth = 1 if place == "worker.batched" else 2  # all eight images may be one batch
    stack.workers[0].start(DARKROOM_FAILPOINTS=f"{place}=kill@{nth}")
    ids = [client.submit(n=2, seed=number)["id"] for number in range(4)]
    stack.workers[0].died_by_kill()
    finish(stack, ids)


def test_a_worker_killed_in_the_middle_of_an_upload(stack: Stack) -> None:
    """When a third of a picture has arrived at the store: nothing half is stored."""
    worker = stack.workers[0]
    worker.stop()

    async def killed(call: Call) -> None:
        os.kill(worker.pid, signal.SIGKILL)

    with FaultyCloud(stack.emulator_port) as cloud, cloud.faulty(Rule("PutObject", killed, times=1, body_share=0.3)):
        stack.restart_worker(AWS_ENDPOINT_URL=cloud.url)
        ids = stack.client().submit_many([{"n": 2, "seed": number} for number in range(4)])
        worker.died_by_kill()
    finish(stack, ids)


def test_a_worker_killed_in_the_middle_of_a_batch(stack: Stack) -> None:
    """No failpoint: whatever it was doing."""
    client = stack.client()
    ids = client.submit_many([{"n": 4, **SLOW}])
    until(lambda: client.get(ids[0])["status"] == "running", 20, what="the batch runs")
    stack.workers[0].kill()
    finish(stack, ids)


def test_a_worker_killed_over_a_heartbeat(stack: Stack) -> None:
    """Heartbeats come three times per visibility timeout, from receipt on: the fourth falls into the rendering."""
    client = stack.client()
    stack.workers[0].stop()
    ids = client.submit_many([{"n": 2, **SLOW}])
    stack.workers[0].start(DARKROOM_FAILPOINTS="worker.heartbeat=kill@4")
    stack.workers[0].died_by_kill()
    finish(stack, ids)


def test_a_worker_killed_while_it_drains(stack: Stack) -> None:
    client = stack.client()
    stack.workers[0].stop()
    stack.workers[0].start(DARKROOM_FAILPOINTS="worker.drain=kill")
    ids = client.submit_many([{"n": 2, **SLOW}])
    until(lambda: client.get(ids[0])["status"] == "running", 20, what="the batch runs")
    stack.workers[0].signal(signal.SIGTERM)
    stack.workers[0].died_by_kill()
    finish(stack, ids)


def test_what_is_sent_again_is_taken_by_whoever_receives_it(tmp_path: Path) -> None:
    """A moment passes between a send and its record; the worker that receives the job asks in it whether it is wanted.

    It was told no and deleted the job, which then waited for the next recheck: a third dispatch.
    """
    with Stack(tmp_path, workers=2, visibility_s=2, env={"DARKROOM_FAILPOINTS": "core.after_send=sleep:2.5"}) as stack:
        client = stack.client()
        ids = client.submit_many([{"model": "slow", "num_inference_steps": 60, "seed": seed} for seed in range(12)])
        number = until(lambda: busy(stack), 30, what="a worker runs some") - 1
        stack.workers[number].signal(signal.SIGSTOP)
        stopped = running_on(stack, f"worker-{number}")
        client.succeeded(ids, 90)
        sent: dict[str, int] = {}
        for line in invariants.read_log(stack):
            if isinstance(line.event, ImageDispatched):
                sent[line.stream] = line.event.dispatch
        assert {sent[stream] for stream in stopped} == {2}
        stack.workers[number].signal(signal.SIGCONT)


def busy(stack: Stack) -> int:
    """Which worker, counted from 1, runs two images or more; 0: none does."""
    return next((number + 1 for number in range(2) if len(running_on(stack, f"worker-{number}")) >= 2), 0)


def running_on(stack: Stack, worker_id: str) -> set[str]:
    """Generations with an image that this worker has begun, and that is not decided."""
    lines = invariants.read_log(stack)
    begun = {line.stream for line in lines if getattr(line.event, "worker_id", "") == worker_id}
    return begun - {line.stream for line in lines if line.type == "image.rendered"}
