"""Many tenants, two gateways, two workers, one of which stops and comes back: each gets its own pictures, once."""

import random
import signal
from collections.abc import Iterator

import pytest

from tests.api import CANARY, Body, story
from tests.e2e import invariants
from tests.eventually import until
from tests.stack import Stack

TENANTS = [f"tenant-{number}" for number in range(10)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("crowd"), gateways=2, workers=2, tenants=TENANTS) as stack:
        yield stack


def requests(seed: int, count: int) -> list[tuple[str, Body]]:
    """Mixed sizes, steps and counts, so that batches mix tenants and generations."""
    draw = random.Random(seed)
    return [
        (
            TENANTS[number % len(TENANTS)],
            {
                "prompt": f"picture {number} {CANARY}",
                "n": draw.randint(1, 4),
                "seed": draw.randrange(2**32),
                "width": draw.choice([64, 64, 128]),
                "num_inference_steps": draw.choice([2, 4]),
            },
        )
        for number in range(count)
    ]


def submitted(stack: Stack, wanted: list[tuple[str, Body]]) -> dict[str, list[str]]:
    """Each tenant's ids, posted through both gateways."""
    ids: dict[str, list[str]] = {}
    for number, tenant in enumerate(stack.tenants):
        bodies = [body for whose, body in wanted if whose == tenant]
        ids[tenant] = stack.client(tenant, gateway=number % 2).submit_many(bodies, at_once=8)
    return ids


def test_a_hundred_generations_of_ten_tenants_each_get_their_own_pictures(stack: Stack) -> None:
    wanted = requests(1, 100)
    for tenant, ids in submitted(stack, wanted).items():
        bodies = stack.client(tenant).succeeded(ids)
        mine = [body for whose, body in wanted if whose == tenant]
        for asked, got in zip(mine, bodies, strict=True):
            assert {key: got[key] for key in asked} == asked
    invariants.check(stack)
    sizes = [start.batch_size for start in invariants.starts(stack)]
    assert max(sizes) > 1, "nothing was batched, so nothing could be swapped"


def test_two_gateways_tell_the_same_story(stack: Stack) -> None:
    first, second = stack.client(gateway=0), stack.client(gateway=1)
    body = first.submit(key="either", seed=5)
    assert second.submit(key="either", seed=5)["id"] == body["id"]
    assert story(second.ended(body["id"])) == story(first.get(body["id"]))
    assert first.ids() == second.ids()


def test_a_worker_that_stands_still_and_comes_back_spoils_nothing(stack: Stack) -> None:
    """Its images go to the other worker when their visibility ends; what it reports afterwards is too late."""
    wanted = requests(2, 40)
    before = len(invariants.starts(stack))
    ids = submitted(stack, wanted)
    until(
        lambda: any(start.worker_id == "worker-0" for start in invariants.starts(stack)[before:]),
        20,
        what="worker-0 has begun something",
    )
    stack.workers[0].signal(signal.SIGSTOP)
    try:
        for tenant, mine in ids.items():
            stack.client(tenant).succeeded(mine)
    finally:
        stack.workers[0].signal(signal.SIGCONT)
    more = stack.client().submit_many([{"seed": k} for k in range(5)])
    stack.client().succeeded(more)
    stack.ready()
    invariants.check(stack)
