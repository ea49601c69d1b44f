"""What a client sees while no worker runs: the line, cancelling in it, expiring in it, and its end."""

from collections.abc import Iterator

import pytest

from tests.api import CANARY
from tests.e2e import invariants
from tests.stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("line"), workers=1) as stack:
        stack.workers[0].stop()
        yield stack
        stack.restart_worker()
        for tenant in stack.tenants:
            client = stack.client(tenant)
            for generation_id in client.ids():
                client.ended(generation_id)
        invariants.check(stack)


def test_a_queued_generation_is_cancelled_and_never_rendered(stack: Stack) -> None:
    client = stack.client()
    body = client.submit(n=2)
    client.call("GET", f"/v1/generations/{body['id']}/images/0").problem(409)
    answer = client.cancel(body["id"])
    assert answer.status == 200
    assert answer.json()["status"] == "cancelled"
    assert {image["status"] for image in answer.json()["images"]} == {"dropped"}
    client.call("GET", f"/v1/generations/{body['id']}/images/0").problem(410)


def test_an_unwanted_generation_expires_with_the_worker_stopped(stack: Stack) -> None:
    client = stack.client()
    body = client.submit(ttl_s=1, n=2)
    kept = client.submit(ttl_s=3600)
    answer = client.call("GET", f"/v1/generations/{body['id']}", headers={"Prefer": "wait=20"})
    assert answer.status == 200
    assert answer.json()["status"] == "expired"
    for index in (0, 1):
        client.call("GET", f"/v1/generations/{body['id']}/images/{index}").problem(410)
    assert client.cancel(body["id"]).problem(409)["state"] == "expired"
    assert client.get(kept["id"])["status"] == "queued"


def test_the_backlog_position_counts_what_stands_before(stack: Stack) -> None:
    """The first 64 images at most are on the queue (the runway); the rest wait in core, in order."""
    client = stack.client("bob")
    ids = [client.submit(n=10)["id"] for _ in range(9)]
    positions = [client.get(each)["backlog_position"] for each in ids]
    waiting = [position for position in positions if position is not None]
    assert waiting, positions
    assert waiting == sorted(waiting), positions
    assert client.get(ids[-1])["status"] == "queued"
    assert client.cancel(ids[-2]).json()["status"] == "cancelled"
    moved = client.get(ids[-1])["backlog_position"]
    assert moved is None or moved < waiting[-1]


def test_a_repeated_key_is_answered_before_anything_was_rendered(stack: Stack) -> None:
    client = stack.client()
    first = client.submit(key="waiting", prompt=f"one {CANARY}")
    assert client.submit(key="waiting", prompt=f"one {CANARY}")["id"] == first["id"]
    client.post(key="waiting", prompt=f"two {CANARY}").problem(422)
