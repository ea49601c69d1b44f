"""A picture that kills its worker: it is found by running suspects alone; its mates succeed (faults.md 39)."""

from pathlib import Path

import pytest

from core.domain import events as e
from tests.api import ENDED
from tests.crash import POISONED_SEED
from tests.e2e import invariants
from tests.eventually import until
from tests.process import module
from tests.stack import Stack

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.timeout(150)
def test_a_poisonous_image_fails_after_three_starts_alone_and_its_mates_succeed(tmp_path: Path) -> None:
    stack = Stack(tmp_path, visibility_s=1)
    worker = stack.workers[0]
    worker.argv = module("tests.crash.poisoned_worker")
    worker.env["PYTHONPATH"] = str(ROOT)
    with stack:
        client = stack.client()
        worker.stop()
        mates = [client.submit(seed=k)["id"] for k in range(7)]
        poison = client.submit(seed=POISONED_SEED - 1, n=2)["id"]

        def all_ended() -> bool:
            if not worker.alive:
                worker.start()
            open_ones = [body["id"] for body in client.listed() if body["status"] not in ENDED]
            assert not open_ones, open_ones
            return True

        until(all_ended, 120, what="all end, with a supervisor that starts the worker again", every_s=0.2)
        stack.ready()
        client.succeeded(mates)
        body = client.get(poison)
        assert body["status"] == "failed", body
        assert [image["status"] for image in body["images"]] == ["published", "failed"], body
        events = [line.event for line in invariants.read_log(stack) if line.stream == poison]
        alone = [event for event in events if isinstance(event, e.ImageStarted) and event.solo and event.index == 1]
        assert len(alone) == 3, [type(event).__name__ for event in events]
        invariants.check(stack)
