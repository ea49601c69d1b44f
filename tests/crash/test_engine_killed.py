"""Whole stacks whose model lives in a process of its own: that process dies, the worker does not, nothing is lost."""

import os
import signal
from pathlib import Path

import pytest

from core.domain import events as e
from tests.api import ENDED
from tests.crash.test_engine_process import gone
from tests.e2e import invariants
from tests.engine_processes import ROOT
from tests.eventually import until
from tests.process import module
from tests.stack import EMULATED, Stack

SERVED = EMULATED.replace('engine = "emulated"', 'engine = "uds"\nserves = "emulated"')


def children(pid: int) -> list[int]:
    """A process's own children, whichever of its threads started them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(each) for each in (task / "children").read_text().split()]
    return found


def engine_of(stack: Stack) -> int:
    """The engine's process, once there is one."""

    def one() -> int:
        (engine,) = children(stack.workers[0].pid)
        return engine

    return until(lambda: one() if children(stack.workers[0].pid) else 0, 30, what="the worker has an engine")


@pytest.mark.timeout(150)
def test_killing_the_engine_again_and_again_costs_time_only(tmp_path: Path) -> None:
    stack = Stack(tmp_path, models=SERVED, visibility_s=5)
    with stack:
        stack.emulated = {"quick", "slow"}
        client = stack.client()
        worker = stack.workers[0].pid
        ids = [client.submit(seed=k, num_inference_steps=20)["id"] for k in range(24)]
        for _ in range(3):
            victim = engine_of(stack)
            os.kill(victim, signal.SIGKILL)
            until(lambda victim=victim: engine_of(stack) != victim, 30, what="it is started again")  # type: ignore[misc]
        client.succeeded(ids, 90)
        assert stack.workers[0].pid == worker
        assert stack.workers[0].alive
        invariants.check(stack)
        engine = engine_of(stack)
    until(lambda: gone(engine), what="the engine has ended with its worker")


@pytest.mark.timeout(150)
def test_an_image_that_kills_its_engine_fails_alone_and_the_worker_lives(tmp_path: Path) -> None:
    stack = Stack(tmp_path, visibility_s=5)
    worker = stack.workers[0]
    worker.argv = module("tests.crash.faulty_engine_worker")
    worker.env["PYTHONPATH"] = str(ROOT)
    with stack:
        client = stack.client()
        pid = worker.pid
        mates = [client.submit(seed=k)["id"] for k in range(4)]
        poison = client.submit(seed=99, prompt="segfault")["id"]
        mates += [client.submit(seed=k)["id"] for k in range(10, 14)]
        until(lambda: client.get(poison)["status"] in ENDED, 100, what=worker.tail())
        client.succeeded(mates, 60)
        assert client.get(poison)["status"] == "failed"
        assert (worker.alive, worker.pid) == (True, pid)
        events = [line.event for line in invariants.read_log(stack) if line.stream == poison]
        alone = [event for event in events if isinstance(event, e.ImageStarted) and event.solo]
        assert 1 <= len(alone) <= 3, [type(event).__name__ for event in events]
        invariants.check(stack)
