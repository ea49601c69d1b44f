"""Each service as it is composed: whichever of its loops is lost, the service ends and says which."""

import asyncio
import inspect
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from core.app import serve as serve_core
from core.config import CoreSettings
from gateway.app import Overrides
from gateway.app import serve as serve_gateway
from infra.lifecycle import Shutdown
from infra.loops import LoopEnded
from tests.eventually import eventually
from tests.unit.core.rig import World
from tests.unit.gateway.harness import FakeStore, settings_for
from tests.unit.worker import rig as worker_rig

WORKER = (
    *("worker.gpu", "worker.announce", "worker.receive", "worker.heartbeat", "worker.wanted", "worker.watchdog"),
    *("worker.replies.0", "worker.delete.1", "worker.encode.0", "worker.upload.0", "worker.settle.0"),
)
CORE = (
    *("core.writer", "core.clock", "core.note", "core.surroundings", "core.dispatcher", "core.expiry"),
    *("core.leftovers.drafts", "core.leftovers.copies", "core.replies.0", "core.publisher.0"),
)
GATEWAY = ("gateway.submit.0", "gateway.watch_core", "gateway.watch_keys")


class Waited(Shutdown):
    """Tells when the service has started whatever it has: then it waits. A start cut off leaves sockets to asyncio."""

    def __init__(self) -> None:
        super().__init__()
        self.started = asyncio.Event()

    async def wait(self) -> None:
        self.started.set()
        await super().wait()


async def loses(name: str, service: Coroutine[Any, Any, None], started: asyncio.Event | None = None) -> None:
    """Runs `service`, cancels that loop, and expects the end of the service for that reason alone."""
    running = asyncio.create_task(service)
    if started is not None:
        await asyncio.wait_for(started.wait(), 20)

    def found() -> "list[asyncio.Task[Any]]":
        """Once it has begun: what is cancelled before never runs, and nobody can tell."""
        named = [task for task in asyncio.all_tasks() if task.get_name() == name]
        return [task for task in named if not _unbegun(task)]

    (await eventually(found, what=name))[0].cancel()
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(running, 20)
    assert leaves(caught.value) == [f"LoopEnded: {name} ended (cancelled)"]


def _unbegun(task: "asyncio.Task[Any]") -> bool:
    return inspect.getcoroutinestate(cast("Coroutine[Any, Any, Any]", task.get_coro())) == inspect.CORO_CREATED


def leaves(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    assert isinstance(error, LoopEnded), error
    return [f"{type(error).__name__}: {error}"]


@pytest.mark.asyncio
@pytest.mark.parametrize("name", WORKER)
async def test_a_worker_that_loses_a_loop_ends(name: str) -> None:
    rig = worker_rig.Rig()
    try:
        await loses(name, rig.worker.run(asyncio.Event().wait))
    finally:
        rig.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("name", CORE)
async def test_a_core_that_loses_a_loop_ends(name: str, tmp_path: Path) -> None:
    settings = CoreSettings(data_dir=tmp_path, core_port=0, core_admin_port=0)
    shutdown = Waited()
    await loses(name, serve_core(settings, shutdown, World().ports()), shutdown.started)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", GATEWAY)
async def test_a_gateway_that_loses_a_loop_ends(name: str, tmp_path: Path) -> None:
    overrides, shutdown = Overrides(store=FakeStore()), Waited()
    await loses(name, serve_gateway(settings_for(tmp_path / "gateway", 1), shutdown, overrides), shutdown.started)
