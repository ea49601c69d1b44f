"""A gateway dies by SIGKILL around a submission; the client repeats it with its key at another gateway."""

import http.client
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.e2e import invariants
from tests.stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("gateway"), gateways=2) as stack:
        yield stack
        invariants.check(stack)


@pytest.mark.parametrize(("place", "stored"), [("gateway.before_submit", 0), ("gateway.after_submit", 1)])
def test_a_repeated_submission_is_the_same_generation(stack: Stack, place: str, stored: int) -> None:
    """faults.md 1 and 2: before the commit nothing is there, after it the very generation that was committed."""
    doomed, other = stack.client("alice", gateway=0), stack.client("alice", gateway=1)
    before, key = other.ids(), uuid4().hex
    stack.gateways[0].stop()
    stack.restart_gateway(0, DARKROOM_FAILPOINTS=f"{place}=kill@1")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        doomed.post(key=key, seed=11)
    stack.gateways[0].died_by_kill()
    made = [each for each in other.ids() if each not in before]
    assert len(made) == stored
    again = other.submit(key=key, seed=11)
    assert [each for each in other.ids() if each not in before] == [again["id"]]
    assert not made or made == [again["id"]]
    assert other.ended(again["id"])["status"] == "succeeded"
    stack.restart_gateway(0)
    assert doomed.submit(key=key, seed=11)["id"] == again["id"]


def test_the_other_gateway_goes_on(stack: Stack) -> None:
    """A gateway holds no job state: what it accepted ends without it."""
    doomed, other = stack.client(gateway=0), stack.client(gateway=1)
    ids = doomed.submit_many([{"seed": k} for k in range(10)])
    stack.gateways[0].kill()
    other.succeeded(ids)
    stack.restart_gateway(0)
    assert doomed.get(ids[0])["status"] == "succeeded"
