"""Loads and unloads one model on the GPU thread, under the watchdog: what goes wrong breaks this model alone."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import structlog

from worker.context import Context
from worker.engines.contract import Engine
from worker.engines.errors import EngineLost, LoadFailed
from worker.gpu.gpu_thread import GpuThread
from worker.gpu.models.model_faults import Trouble, is_panic, trouble_of
from worker.ports import LoadMarks, ModelFiles

_log = structlog.get_logger()
T = TypeVar("T")


class ModelLoader:
    """Used by the pool, for one model at a time. `stamp` is the files' stamp from just before the last load."""

    def __init__(self, context: Context, gpu: GpuThread, files: ModelFiles, marks: LoadMarks) -> None:
        self._context = context
        self._gpu = gpu
        self._files = files
        self._marks = marks
        self.stamp = ""

    async def check(self, model: str) -> Trouble | None:
        """What is plainly wrong with the files; None for nothing. Called before another model is unloaded for it."""
        return await self._watched(partial(self._check, model))

    async def load(self, model: str, engine: Engine) -> Trouble | None:
        """Make one attempt to load; what went wrong, or None. Raises EngineLost."""
        return await self._watched(partial(self._load, model, engine))

    async def unload(self, engine: Engine) -> None:
        """Raises EngineLost, when the device is beyond repair in this process, and nothing else."""
        await self._watched(partial(_unload, engine))

    async def _watched(self, work: Callable[[], T]) -> T:
        """Run `work` on the GPU thread under the load deadline. If it hangs, the watchdog ends the worker, which would
        otherwise keep its messages hidden from other workers.
        """
        self._gpu.pulse.begin_load(self._context.clock())
        try:
            return await self._gpu.threads.run(work)
        finally:
            self._gpu.pulse.fail()

    def _check(self, model: str) -> Trouble | None:
        try:
            self.stamp = self._files.stamp_at_load(model)
            problem = self._files.problem(model)
        except Exception as error:  # noqa: BLE001  (whatever the files of a model make a reader raise)
            return trouble_of(error)
        return trouble_of(LoadFailed(problem)) if problem else None

    def _load(self, model: str, engine: Engine) -> Trouble | None:
        """A library may raise anything."""
        self._marks.begin(model)
        trouble: Trouble | None = None
        try:
            engine.load()
        except EngineLost:
            raise
        except Exception as error:  # noqa: BLE001
            trouble = trouble_of(error)
        except BaseException as error:
            if not is_panic(error):
                raise
            trouble = trouble_of(error)
        self._marks.end(model)
        if trouble is not None:  # outside the except blocks: a traceback keeps tensors alive
            _unload(engine)
        return trouble


def _unload(engine: Engine) -> None:
    try:
        engine.unload()
    except EngineLost:
        if not engine.capabilities.apart:
            raise
    except Exception as error:  # noqa: BLE001  (what is left of a model may raise anything)
        _log.warning("model.not_unloaded", model=engine.facts.model, error=type(error).__name__)
