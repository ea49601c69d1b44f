"""What the composition root does at the end of a worker."""

import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.emulators import aws_environment
from tests.stack import EMULATED
from tests.unit.worker.rig import FaultyEngine
from worker import app
from worker.config import WorkerSettings
from worker.threads import WorkerThreads


@pytest.mark.asyncio
async def test_loaded_engines_are_unloaded_on_the_gpu_thread() -> None:
    class Noticing(FaultyEngine):
        where = ""

        def unload(self) -> None:
            self.where = threading.current_thread().name
            super().unload()

    loaded, idle = Noticing(), Noticing()
    loaded.load()
    thread = WorkerThreads("gpu")
    await app.unload([loaded, idle], thread)
    thread.close()
    assert (loaded.loaded, loaded.where, idle.where) == (False, "gpu-0", "")


@pytest.mark.asyncio
async def test_the_end_of_a_worker_unloads_its_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is still a thread to do it on."""
    for name, value in aws_environment("http://127.0.0.1:1").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "models.toml").write_text(EMULATED)
    async with AsyncExitStack() as stack:
        ports = await app.open_ports(WorkerSettings(models_file=tmp_path / "models.toml"), stack)
        for engine in ports.engines.values():
            await ports.gpu_thread.run(engine.load)
        assert all(engine.loaded for engine in ports.engines.values())
    assert not any(engine.loaded for engine in ports.engines.values())


@pytest.mark.parametrize("how", ["hangs", "raises"])
@pytest.mark.asyncio
async def test_an_engine_that_cannot_be_unloaded_holds_nobody_up(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "UNLOAD_S", 0.05)
    go_on, released = threading.Event(), []

    class Stuck(FaultyEngine):
        def unload(self) -> None:
            if how == "raises":
                raise ZeroDivisionError
            released.append(go_on.wait(10))

    engine = Stuck()
    engine.load()
    thread = WorkerThreads("gpu")
    await app.unload([engine], thread)
    go_on.set()
    thread.close()
    assert all(released), "the end of the worker waited for the engine"
