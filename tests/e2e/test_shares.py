"""A tenant that posts without pause beside one that keeps to its share, on real processes; and books through a kill -9.

`python -m loadtests.shares` has the full figures.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.api import Client
from tests.e2e import invariants
from tests.eventually import until
from tests.stack import Stack

CAP = 20
CHARGE, TENANTS = "darkroom_core_backlog_charge", "darkroom_core_backlog_tenants"


@contextmanager
def flooding(client: Client, seen: Counter[int], *, connections: int = 8) -> Iterator[None]:
    """Posts without pause until the end of the block; `seen` counts the statuses."""
    stop = threading.Event()

    def post() -> None:
        while not stop.is_set():
            answer = client.post()
            if answer.status == 429:
                problem = answer.problem(429)
                assert problem["bound"] == "share", problem
                assert 1 <= int(answer.headers["retry-after"]) <= 120
            seen[answer.status] += 1

    threads = [threading.Thread(target=post, name=f"flood {number}") for number in range(connections)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        stop.set()
        for each in threads:
            each.join()


def test_below_its_share_a_tenant_is_accepted_whatever_another_does(tmp_path: Path) -> None:
    with Stack(tmp_path, env={"DARKROOM_CORE_BACKLOG_CAP": str(CAP)}) as stack:
        alice, bob = stack.client("alice"), stack.client("bob")
        seen: Counter[int] = Counter()
        with flooding(alice, seen):
            until(lambda: seen[429] > 0, 60, what="the backlog is full")
            unfinished: list[str] = []
            for _ in range(40):
                while len(unfinished) >= CAP // 2:
                    unfinished = [each for each in unfinished if bob.get(each, wait_s=1)["status"] != "succeeded"]
                answer = bob.post()
                assert answer.status == 202, answer.body
                unfinished.append(answer.json()["id"])
        assert set(seen) == {202, 429}
        for client in (alice, bob):
            client.succeeded(client.ids())
        metrics = stack.metrics(stack.core_admin)
        assert (metrics[CHARGE], metrics[TENANTS]) == (0, 0), "every charge was given back"
        invariants.check(stack)


def test_a_core_that_is_killed_reads_its_books_from_the_log(tmp_path: Path) -> None:
    stack = Stack(tmp_path, env={"DARKROOM_CORE_BACKLOG_CAP": str(CAP)})
    with stack:
        stack.workers[0].stop()
        alice, bob = stack.client("alice"), stack.client("bob")
        alice.submit(n=3, width=128, height=128)
        alice.cancel(alice.submit(n=2)["id"])
        bob.submit(n=5, num_inference_steps=2)
        before = stack.metrics(stack.core_admin)
        assert (before[CHARGE], before[TENANTS]) == (3 * 4 + 5 * 0.5, 2)
        stack.core.kill()
        stack.core.start()
        stack.service_ready(stack.core, stack.core_admin)
        after = stack.metrics(stack.core_admin)
        assert (after[CHARGE], after[TENANTS]) == (before[CHARGE], before[TENANTS])
        until(lambda: alice.post(n=1).status == 202, 30, what="the gateway finds core again")
        assert alice.post(n=10).problem(429)["bound"] == "share"
        assert bob.post(n=7).status == 202
        stack.workers[0].start()
        stack.ready()
        for client in (alice, bob):
            client.succeeded([each for each in client.ids() if client.get(each)["status"] != "cancelled"])
        invariants.check(stack)
