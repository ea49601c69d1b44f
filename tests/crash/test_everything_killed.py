"""Everything dies at once; the queue is purged; the emulator dies and its queues with it. Nothing accepted is lost."""

from pathlib import Path

from tests.api import Body
from tests.cloud import JOBS
from tests.e2e import invariants
from tests.eventually import until
from tests.stack import Stack


def test_everything_killed_at_once_with_twenty_accepted(tmp_path: Path) -> None:
    with Stack(tmp_path, gateways=2, workers=2, visibility_s=2) as stack:
        client = stack.client()
        bodies: list[Body] = [
            {"n": 1 + k % 3, "seed": k, "model": "slow" if k % 4 == 0 else "quick", "num_inference_steps": 8}
            for k in range(20)
        ]
        ids = client.submit_many(bodies)
        until(
            lambda: {"running", "succeeded"} & {body["status"] for body in client.listed()},
            20,
            what="work is on its way",
        )
        for process in stack.processes:
            process.kill()
        for process in stack.processes:
            process.start()
        stack.ready()
        client.succeeded(ids, 60)
        invariants.check(stack)
        stack.core.stop()
        stack.command("core", "verify")
        stack.restart_core()


def fifty_wait(stack: Stack) -> list[str]:
    """Fifty accepted while no worker runs, their images on the queue."""
    stack.workers[0].stop()
    ids = stack.client().submit_many([{"seed": k} for k in range(50)])
    until(lambda: stack.cloud.waiting(JOBS) == 50, 20, what="all fifty are on the queue", every_s=0.1)
    return ids


def test_a_purged_queue_costs_time_and_nothing_else(tmp_path: Path) -> None:
    with Stack(tmp_path, visibility_s=2) as stack:
        ids = fifty_wait(stack)
        stack.cloud.purge(JOBS)
        assert stack.cloud.waiting(JOBS) == 0
        stack.restart_worker()
        stack.client().succeeded(ids, 60)
        invariants.check(stack)


def test_an_emulator_killed_with_its_queues_costs_time_and_nothing_else(tmp_path: Path) -> None:
    with Stack(tmp_path, visibility_s=2) as stack:
        ids = fifty_wait(stack)
        stack.emulator.kill()
        stack.emulator.start()
        stack.emulator_ready()
        stack.restart_worker()
        stack.client().succeeded(ids, 60)
        stack.ready()
        invariants.check(stack)
