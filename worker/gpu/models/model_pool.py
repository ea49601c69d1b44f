"""Which engine renders which model, and which of them can be used. Models are loaded on demand, on the GPU thread and
under the watchdog, one attempt at a time; images of other models are rendered between attempts, so that a model that
cannot be loaded does not stop the others.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from worker.batching.batch_limits import BatchLimits
from worker.context import Context
from worker.engines.contract import BatchKey, Engine, RenderJob
from worker.engines.errors import Unsupported
from worker.gpu.gpu_thread import GpuThread
from worker.gpu.models.model_faults import ModelFault, Trouble, fault_after, fault_of_deaths, trouble_of
from worker.gpu.models.model_loader import ModelLoader
from worker.holding.types import ModelState
from worker.holding.window import Window
from worker.ports import ListedModel, LoadMarks, ModelFiles
from worker.time_ledger import Cause

_log = structlog.get_logger()
LOOK_S = 1.0
"""Period of the checks whether files of a broken model have changed, and whether a pause is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSources:
    """The engine of each model, the default one first; its files; and the marks of loads that ended a worker."""

    engines: Mapping[str, Engine]
    files: ModelFiles
    marks: LoadMarks


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """`loaded`: models that stay loaded at a time, those on servers elsewhere not counted. `longest_away_s`: the
    longest pause before a remote model is tried again.
    """

    loaded: int
    longest_away_s: float


class ModelPool:
    """Holds every model of the models file. `waiting`: the default model is being loaded at start. Wakes tasks that
    await a change of the window when a model may be due to load.
    """

    def __init__(
        self,
        context: Context,
        gpu: GpuThread,
        window: Window,
        batch_limits: BatchLimits,
        sources: ModelSources,
        limits: PoolLimits,
    ) -> None:
        self._context = context
        self._gpu = gpu
        self._window = window
        self._batch_limits = batch_limits
        self._engines = dict(sources.engines)
        self._files = sources.files
        self._loader = ModelLoader(context, gpu, sources.files, sources.marks)
        self._limits = limits
        self._used: list[Engine] = []
        self._loading: Engine | None = None
        self._faults = {
            model: fault_of_deaths(deaths, context.clock())
            for model, deaths in sources.marks.left().items()
            if model in self._engines
        }
        self._past: dict[str, ModelFault] = {}
        self._stamps: dict[str, list[str]] = {}
        self.waiting = self._preloads = False
        context.metrics.watch_models(lambda: {each.facts.model: each.state for each in self.listed()})

    @property
    def default(self) -> Engine:
        """The first model's engine."""
        return next(iter(self._engines.values()))

    def engine(self, model: str) -> Engine:
        """Raises Unsupported for a model that is not served here."""
        try:
            return self._engines[model]
        except KeyError:
            raise Unsupported("this worker does not serve the model") from None

    def key(self, job: RenderJob) -> BatchKey:
        """The job's batch key. Raises Unsupported."""
        return self.engine(job.model).key(job)

    def limit(self, job: RenderJob, key: BatchKey) -> int:
        """How many images may share a batch with this job. Takes `key` instead of asking the engine, which may refuse
        once loaded what it had a key for before. Any thread.
        """
        return self._batch_limits.limit(job, key, self.engine(job.model).capabilities.max_batch)

    def fault(self, model: str) -> ModelFault | None:
        """Why the model cannot be used now; None when it can, or when a load is due."""
        fault = self._faults.get(model)
        return fault if fault is not None and self._context.clock() < fault.until_s else None

    def listed(self) -> Sequence[ListedModel]:
        """What the worker reports of each model."""
        return [
            ListedModel(
                facts=engine.facts,
                state=(state := self._state(model)),
                reason=self._faults[model].reason if state in (ModelState.BROKEN, ModelState.AWAY) else "",
                max_batch=engine.capabilities.max_batch,
            )
            for model, engine in self._engines.items()
        ]

    def largest_batch(self) -> int:
        """The most that any model takes at once."""
        return max(engine.capabilities.max_batch for engine in self._engines.values())

    async def preload(self) -> None:
        """Make the default engine ready, unless its load has ended the worker before. Others are served without it."""
        self.waiting = self._preloads = True
        try:
            if self.fault(self._name(self.default)) is None:
                await self.load(self.default)
        finally:
            self.waiting = False
            self._report()

    async def load(self, engine: Engine, *, wanted_since_s: float | None = None) -> ModelFault | None:
        """Make one attempt to load `engine`; its fault if that fails, else None. `wanted_since_s`: when the oldest
        image that needs it was requested, to attribute the idle time that ends here. Raises EngineLost.
        """
        model, began = self._name(engine), self._context.clock()
        self._context.ledger.idle_ended(began, existed_since_s=wanted_since_s)
        self._loading = engine
        try:
            begun_s = began
            trouble = await self._loader.check(model)
            if trouble is None:
                await self._make_room(engine)
                begun_s = self._context.clock()
                trouble = await self._loader.load(model, engine)
        finally:
            self._loading = None
            self._gpu.waits.loading_until_s = ended = self._context.clock()
            self._context.ledger.spend(Cause.LOADING, began, ended)
            self._context.ledger.idle_began(ended)
        if trouble is not None:
            self._context.metrics.load_failures.labels(model=engine.facts.model).inc()
            failed = self._out(engine, trouble, took_s=ended - begun_s)
            # The stamp from before the load, not from the first check: the files may be repaired in between.
            self._stamps[model] = [self._loader.stamp] * 2
            return failed
        if (fault := self._faults.pop(model, None)) is not None:
            self._past[model] = fault
        self.touch(engine)
        self._report()
        _log.info("model.loaded", model=engine.facts.model, device=engine.facts.device, dtype=engine.facts.dtype)
        return None

    async def lose(self, engine: Engine, error: Exception) -> ModelFault:
        """Unload a model whose server is away, or whose process has died and does not start again; its new fault."""
        fault = self._out(engine, trouble_of(error), took_s=0.0)
        await self._loader.unload(engine)
        return fault

    def proven(self, engine: Engine) -> None:
        """The engine has made a picture: forget its last fault, which a successful load alone does not clear."""
        if self._past:
            self._past.pop(self._name(engine), None)

    def touch(self, engine: Engine) -> None:
        """It has been used just now."""
        if engine in self._used:
            self._used.remove(engine)
        self._used.append(engine)

    def to_retry(self) -> Engine | None:
        """The default model, if its load at start has failed and is due again although no image asks for it."""
        fault = self._faults.get(self._name(self.default))
        due = self._preloads and fault is not None and self._context.clock() >= fault.until_s
        # Not while another local model is loaded: it might be unloaded for one that no image asks for.
        free = self.default.capabilities.remote or not any(_is_here(each) for each in self._engines.values())
        return self.default if due and free else None

    async def watch(self) -> None:
        """Run until cancelled: let a broken model be tried again once its files have changed and settled, and wake
        the GPU loop when the default model is due.
        """
        while True:
            await asyncio.sleep(LOOK_S)
            if self.to_retry() is not None:
                self._window.touch()
            for model, fault in list(self._faults.items()):
                if fault.state is ModelState.BROKEN and await self._have_changed(model):
                    self._faults.pop(model, None)
                    _log.info("model.files_changed", model=model)
                    self._report()
                    self._window.touch()
            for model in self._stamps.keys() - self._faults.keys():
                del self._stamps[model]

    async def _have_changed(self, model: str) -> bool:
        """Whether the files differ from those that failed, and not from the last check: a copy may be under way."""
        stamp = await self._files.stamp(model)
        first, last = self._stamps.setdefault(model, [stamp, stamp])
        self._stamps[model][1] = stamp
        return stamp not in {"", first} and stamp == last

    def _name(self, engine: Engine) -> str:
        return next(name for name, each in self._engines.items() if each is engine)

    def _state(self, model: str) -> ModelState:
        """A broken one stays so until a load succeeds; one that was away is offered again when its pause is over."""
        fault, engine = self._faults.get(model), self._engines[model]
        if fault is not None and (fault.state is ModelState.BROKEN or self._context.clock() < fault.until_s):
            return fault.state
        if engine is self._loading:
            return ModelState.LOADING
        return ModelState.LOADED if engine.loaded else ModelState.UNLOADED

    def _out(self, engine: Engine, trouble: Trouble, *, took_s: float) -> ModelFault:
        model, now_s = self._name(engine), self._context.clock()
        fault = fault_after(
            self._faults.get(model) or self._past.pop(model, None),
            trouble,
            now_s=now_s,
            took_s=took_s,
            draw=self._context.rng(),
            remote=engine.capabilities.remote,
            longest_away_s=self._limits.longest_away_s,
        )
        self._faults[model] = fault
        self._stamps.pop(model, None)
        _log.error(
            "model.out",
            model=model,
            state=fault.state.name.lower(),
            error=trouble.kind,
            detail=trouble.text,
            times=fault.times,
            again_in_s=round(fault.until_s - now_s, 1),
        )
        self._report()
        return fault

    def _report(self) -> None:
        """Ready while any model can be used; those that cannot are reported as notes."""
        out = [f"model {model} is {fault.state.name.lower()}: {fault.reason}" for model, fault in self._faults.items()]
        self._context.health.note("models", out)
        if len(out) == len(self._engines):
            self._context.health.mark_unready("model", f"no model can be used: {'; '.join(out)}")
        elif not self.waiting:
            self._context.health.clear("model")

    async def _make_room(self, engine: Engine) -> None:
        """Unload the least recently used local models beyond the limit. A remote model takes no memory here, so it
        neither needs room nor makes any.
        """
        if engine.capabilities.remote:
            return
        others = [each for each in self._used if _is_here(each) and each is not engine]
        for victim in others[: max(0, len(others) + 1 - self._limits.loaded)]:
            await self._loader.unload(victim)
            _log.info("model.unloaded", model=victim.facts.model)


def _is_here(engine: Engine) -> bool:
    """Whether it takes memory of this machine."""
    return engine.loaded and not engine.capabilities.remote
