"""A worker that may open no more files, or have no more memory (faults.md 42): it waits or ends; nothing is lost."""

import contextlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api import ENDED, Body
from tests.e2e import invariants
from tests.eventually import until
from tests.process import Process
from tests.stack import Stack

LARGE: Body = {"width": 512, "height": 512}
pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("limits"), visibility_s=3) as running:
        yield running


def complaints(process: Process) -> int:
    """How often it said that a call came to nothing."""
    events = ("receive.failed", "upload.failed", "call.failed", "heartbeat.failed")
    return sum(process.output().count(f'"event": "{each}"') for each in events)


def short_of(stack: Stack, limit: int, now: Callable[[int], int]) -> None:
    """A worker that has just started, and holds neither connections nor memory in reserve, gets no more than it has
    `now`. Then it gets work. Which call fails first is chance: one to a service is repeated, anything else ends the
    process with code 1. Then there is enough again, and a supervisor.
    """
    worker, client = stack.workers[0], stack.client()
    worker.stop()
    stack.restart_worker()
    before = complaints(worker)
    _, most = resource.prlimit(worker.pid, limit)
    usual = resource.prlimit(worker.pid, limit, (now(worker.pid), most))
    ids = client.submit_many([LARGE] * 24)
    until(lambda: not worker.alive or complaints(worker) > before, 40, what=f"it ends or complains\n{worker.tail()}")
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(worker.pid, limit, usual)

    def healed() -> bool:
        if not worker.alive:
            assert worker.exit_code() == 1, worker.tail()
            assert "process.crashed" in worker.tail(3)
            stack.restart_worker()
        left = [body["id"] for body in client.listed() if body["status"] not in ENDED]
        assert not left, f"{len(left)} are open\n{worker.tail()}"
        return True

    until(healed, 90, what="all end", every_s=0.5)
    client.succeeded(ids)
    stack.ready()
    invariants.check(stack)


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def address_space(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def test_row_42_a_worker_without_memory_loses_nothing_and_convicts_nobody(stack: Stack) -> None:
    short_of(stack, resource.RLIMIT_AS, address_space)


def test_row_42_a_worker_that_may_open_no_more_files_loses_nothing_and_convicts_nobody(stack: Stack) -> None:
    short_of(stack, resource.RLIMIT_NOFILE, open_files)
