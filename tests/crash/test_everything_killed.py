"""Everything dies at once; queues are purged; the emulator dies and its queues with it. Nothing accepted is lost."""

from pathlib import Path

from tests.api import Body
from tests.cloud import JOBS, REPLIES
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


def wait_on_the_queue(stack: Stack, count: int) -> list[str]:
    """So many images accepted while no worker runs, on the queue."""
    stack.workers[0].stop()
    ids = stack.client().submit_many([{"seed": k, "n": 10} for k in range(count // 10)])
    until(lambda: stack.cloud.waiting(JOBS) == count, 40, what="all are on the queue", every_s=0.1)
    return ids


def test_29_a_purged_queue_of_500_costs_time_and_nothing_else(tmp_path: Path) -> None:
    with Stack(tmp_path, visibility_s=2, env={"DARKROOM_CORE_RUNWAY": "500"}) as stack:
        ids = wait_on_the_queue(stack, 500)
        stack.cloud.purge(JOBS)
        assert stack.cloud.waiting(JOBS) == 0
        stack.restart_worker()
        stack.client().succeeded(ids, 90)
        invariants.check(stack)


def test_29_purged_replies_cost_a_rendering_each_and_nothing_else(tmp_path: Path) -> None:
    """What the workers said while core was away is lost: core asks for these images again."""
    with Stack(tmp_path, visibility_s=2) as stack:
        ids = wait_on_the_queue(stack, 50)
        stack.core.kill()
        stack.workers[0].start()
        until(lambda: stack.cloud.waiting(JOBS) == 0 and stack.cloud.waiting(REPLIES) >= 50, 40, what="all is said")
        stack.cloud.purge(REPLIES)
        stack.restart_core()
        stack.client().succeeded(ids, 90)
        stack.ready()
        invariants.check(stack)


def test_an_emulator_killed_with_its_queues_costs_time_and_nothing_else(tmp_path: Path) -> None:
    with Stack(tmp_path, visibility_s=2) as stack:
        ids = wait_on_the_queue(stack, 50)
        stack.emulator.kill()
        stack.emulator.start()
        stack.emulator_ready()
        stack.restart_worker()
        stack.client().succeeded(ids, 60)
        stack.ready()
        invariants.check(stack)
