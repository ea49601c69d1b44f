"""A rolling upgrade: processes of an older and of a newer schema work side by side.

What is proved: these processes, as they are, beside peers that send more than they know, less than they send, or a
version of a message that they do not read. The schema has had no incompatible version yet, so no released process of
an older one exists to start; the bytes of version 1 are kept in `tests/property/test_queue_codec.py`.
"""

from collections.abc import Iterator

import pytest

from schema.envelope import unseal
from tests import fault_actions as a
from tests import other_schema as other
from tests.cloud import DEAD
from tests.e2e import invariants
from tests.eventually import until
from tests.fault_cloud import Call, FaultyCloud, Reply, Rule
from tests.stack import Stack


@pytest.fixture(scope="module")
def cloud() -> Iterator[FaultyCloud]:
    with FaultyCloud(seed=1) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def relay() -> Iterator[other.Relay]:
    with other.Relay() as relay:
        yield relay


@pytest.fixture(scope="module")
def stack(cloud: FaultyCloud, relay: other.Relay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    env = {"AWS_ENDPOINT_URL": cloud.url, "DARKROOM_CORE_TARGET": f"127.0.0.1:{relay.port}"}
    stack = Stack(tmp_path_factory.mktemp("rolling"), env=env)
    cloud.target, relay.target = stack.emulator_port, stack.core_port
    with stack:
        yield stack
        invariants.check(stack)
    assert "ok" in stack.command("core", "verify")


def everything_works(stack: Stack) -> None:
    """Submit, repeat, wait, list, fetch and cancel."""
    client = stack.client()
    key = f"key-{len(client.ids())}"
    made = client.submit(key=key, n=3, seed=11)
    assert client.submit(key=key, n=3, seed=11)["id"] == made["id"]
    client.get(made["id"], wait_s=20)
    done = client.ended(made["id"])
    assert done["status"] == "succeeded"
    assert [image["seed"] for image in done["images"]] == [11, 12, 13]
    slow = client.submit(model="slow", num_inference_steps=150, n=4)["id"]
    assert client.cancel(slow).status == 200
    assert {made["id"], slow} <= set(client.ids())
    assert client.ended(slow)["status"] == "cancelled"
    invariants.check(stack)


@pytest.mark.parametrize("change", [other.newer, other.older])
def test_peers_of_another_schema_on_every_side(
    stack: Stack, cloud: FaultyCloud, relay: other.Relay, change: other.Change
) -> None:
    """Jobs, replies, calls and answers, all of them changed on their way."""
    calls, relay.change = relay.calls, change
    try:
        with cloud.faulty(Rule("SendMessageBatch", a.rewritten(other.in_queue(change)))) as [rule]:
            everything_works(stack)
    finally:
        relay.change = other.untouched
    assert rule.hits >= 3
    assert relay.calls - calls >= 5


def test_a_core_that_does_not_know_still_wanted(stack: Stack, relay: other.Relay) -> None:
    """A newer worker asks what an older core cannot answer: nothing is dropped, everything is rendered."""
    relay.missing = frozenset({"StillWanted"})
    try:
        client = stack.client()
        client.succeeded(client.submit_many([{"n": 2, "seed": k} for k in range(4)]))
    finally:
        relay.missing = frozenset()
    invariants.check(stack)


def test_a_version_of_tomorrow_is_put_aside_and_done_when_it_can_be_read(stack: Stack, cloud: FaultyCloud) -> None:
    """Jobs that this worker and replies that this core cannot read: kept as they are, decided by nobody, done later."""
    tomorrow: list[bytes] = []
    make = other.in_queue(other.newer, version=2)

    def upgraded(body: bytes) -> bytes:
        tomorrow.append(make(body))
        return tomorrow[-1]

    async def act(call: Call) -> Reply | None:
        if "darkroom-dead" in str(call.json()["QueueUrl"]):
            return await call.forward()
        return await a.rewritten(upgraded)(call)

    client = stack.client()
    earlier = stack.cloud.waiting(DEAD)
    with cloud.faulty(Rule("SendMessageBatch", act, times=4)):
        ids = client.submit_many([{"n": 2, "seed": k} for k in range(3)])
        client.succeeded(ids)
    assert {unseal(body).version for body in tomorrow} == {2}
    assert stack.cloud.waiting(DEAD) - earlier == len(tomorrow)
    dead: set[bytes] = set()

    def all_taken() -> bool:  # core looks at them too, and hides them for a second
        dead.update(stack.cloud.take(DEAD, hidden_s=60))
        return set(tomorrow) <= dead

    until(all_taken, 30)
    invariants.check(stack)
