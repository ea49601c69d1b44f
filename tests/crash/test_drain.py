"""SIGTERM to each service under load: it ends cleanly and in time, and nothing accepted is lost (faults.md 38)."""

import signal
from collections.abc import Iterator

import pytest

from core.domain import events as e
from tests.cloud import JOBS
from tests.e2e import invariants
from tests.eventually import until
from tests.stack import Stack

MAX_BATCH = 4
"""Of the emulated models."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("drain"), gateways=2, workers=1, visibility_s=30) as stack:
        yield stack
        invariants.check(stack)


def load(stack: Stack, count: int = 20) -> list[str]:
    client = stack.client()
    ids = client.submit_many([{"n": 2, "seed": k, "num_inference_steps": 20} for k in range(count)])
    until(lambda: client.get(ids[0])["status"] != "queued", 20, what="the first one runs")
    return ids


def test_a_worker_gives_back_what_it_had_not_begun(stack: Stack) -> None:
    """Visibility is 30 s here: only what is given back at once can be rendered again so soon."""
    client = stack.client()
    ids = client.submit_many([{"n": 1, "model": "slow", "num_inference_steps": 20} for _ in range(20)])
    until(lambda: any(client.get(each)["status"] == "running" for each in ids[:8]), 20, what="one runs")
    stack.workers[0].stop()
    begun = {line.stream for line in invariants.read_log(stack) if line.type == "image.started"}
    assert set(ids) - begun, "all had begun, so nothing was given back"
    stack.restart_worker()
    client.succeeded(ids, 28)
    attempts = [line for line in invariants.read_log(stack) if line.type == "image.started" and line.stream in ids]
    turned_away = len(attempts) - 20  # announced to join at one of the next steps, and not admitted any more
    assert turned_away <= MAX_BATCH, "the drain finished what it had begun"
    suspects = [line for line in attempts if isinstance(line.event, e.ImageStarted) and line.event.solo]
    assert not suspects, "what was given back is held against nobody"


def test_core_stops_in_mid_flow(stack: Stack) -> None:
    ids = load(stack)
    stack.core.stop()
    stack.restart_core()
    stack.client().succeeded(ids)


def test_a_gateway_answers_what_it_has_taken_and_takes_no_more(stack: Stack) -> None:
    client, other = stack.client(gateway=0), stack.client(gateway=1)
    body = client.submit(model="slow")
    stack.gateways[0].stop()
    with pytest.raises(ConnectionError):
        client.get(body["id"])
    assert other.ended(body["id"])["status"] == "succeeded"
    stack.restart_gateway(0)


def test_everything_stops_cleanly_and_goes_on(stack: Stack) -> None:
    ids = load(stack, 30)
    for process in [*stack.gateways, *stack.workers, stack.core]:
        process.signal(signal.SIGTERM)
    for process in [*stack.gateways, *stack.workers, stack.core]:
        assert process.exit_code() == 0, process.tail()
    stack.emulator.stop()
    for process in stack.processes:
        process.start()
    stack.ready()
    stack.client().succeeded(ids)
    assert stack.cloud.waiting(JOBS) == 0
