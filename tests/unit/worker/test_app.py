"""What the composition root does at the end of a worker."""

import threading

import pytest

from tests.unit.worker.rig import FaultyEngine
from worker import app
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


@pytest.mark.parametrize("how", ["hangs", "raises"])
@pytest.mark.asyncio
async def test_an_engine_that_cannot_be_unloaded_holds_nobody_up(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "UNLOAD_S", 0.05)
    go_on = threading.Event()

    class Stuck(FaultyEngine):
        def unload(self) -> None:
            if how == "raises":
                raise ZeroDivisionError
            assert go_on.wait(60)

    engine = Stuck()
    engine.load()
    thread = WorkerThreads("gpu")
    await app.unload([engine], thread)
    go_on.set()
    thread.close()
