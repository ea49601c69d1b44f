"""Which engine renders which model, and which of them are loaded. Loading happens on the GPU thread, on demand, and
under the watchdog's eyes.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from infra.retry import backoff_s
from worker.engines.contract import BatchKey, Engine, RenderJob
from worker.errors import Unsupported
from worker.health import Health
from worker.ledger import Cause, Ledger
from worker.metrics import Metrics
from worker.ports import ListedModel, Rng, Threads
from worker.timing import Caps, Waits
from worker.types import ModelState
from worker.watchdog import Pulse

_log = structlog.get_logger()
MAX_LOADS = 3


class Models:
    """Every model of the models file. `broken` once one has failed to load three times in a row; `waiting` while the
    default one is loaded at the start.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        thread: Threads,
        *,
        keep_loaded: int,
        caps: Caps,
        waits: Waits,
        ledger: Ledger,
        pulse: Pulse,
        rng: Rng,
        metrics: Metrics,
        health: Health,
    ) -> None:
        self._engines = dict(engines)
        self._thread = thread
        self._keep_loaded = keep_loaded
        self._caps = caps
        self._waits = waits
        self._ledger = ledger
        self._pulse = pulse
        self._rng = rng
        self._metrics = metrics
        self._health = health
        self._used: list[Engine] = []
        self.broken = False
        self.waiting = False

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
        """How many may share a batch with this job, whose key is given: an engine may refuse, once it is loaded, what
        it had a key for. Any thread.
        """
        return self._caps.limit(job, key, self.engine(job.model).capabilities.max_batch)

    def listed(self) -> Sequence[ListedModel]:
        """What is said of each to those who ask for work."""
        return [
            ListedModel(
                facts=engine.facts,
                state=ModelState.LOADED if engine.loaded else ModelState.UNLOADED,
                reason="",
                max_batch=engine.capabilities.max_batch,
            )
            for engine in self._engines.values()
        ]

    def largest_batch(self) -> int:
        """The most that any model takes at once."""
        return max(engine.capabilities.max_batch for engine in self._engines.values())

    async def preload(self) -> bool:
        """Make the default engine ready. False after three failures."""
        self.waiting = True
        try:
            return await self.load(self.default)
        finally:
            self.waiting = False

    async def load(self, engine: Engine, *, wanted_since_s: float | None = None) -> bool:
        """Make `engine` ready. False after three failures: this worker is of no use any more. `wanted_since_s`: since
        when the image that needs it has existed, for the idle time that ends here.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._ledger.idle_ended(began, existed_since_s=wanted_since_s)
        try:
            await self._make_room(engine)
            for attempt in range(MAX_LOADS):
                if await self._load_once(engine):
                    return True
                await asyncio.sleep(backoff_s(attempt, first_s=0.5, cap_s=5.0, draw=self._rng()))
        finally:
            self._waits.loading_until_s = ended = loop.time()
            self._ledger.spend(Cause.LOADING, began, ended)
            self._ledger.idle_began(ended)
        self.broken = True
        self._health.hinder("model", f"model {engine.facts.model} failed to load {MAX_LOADS} times")
        return False

    def touch(self, engine: Engine) -> None:
        """It has been used just now."""
        if engine in self._used:
            self._used.remove(engine)
        self._used.append(engine)

    async def _make_room(self, engine: Engine) -> None:
        others = [each for each in self._used if each.loaded and each is not engine]
        for victim in others[: max(0, len(others) + 1 - self._keep_loaded)]:
            await self._watched(victim.unload)
            _log.info("model.unloaded", model=victim.facts.model)

    async def _watched(self, work: Callable[[], None]) -> None:
        """On the GPU thread. If that never comes back, the watchdog ends the worker: what has been received would stay
        hidden from all the others.
        """
        self._pulse.begin_load(asyncio.get_running_loop().time())
        try:
            await self._thread.run(work)
        finally:
            self._pulse.fail()

    async def _load_once(self, engine: Engine) -> bool:
        model = engine.facts.model
        try:
            await self._watched(engine.load)
        except Exception as error:  # noqa: BLE001  (whatever a model's files make its library raise)
            self._metrics.load_failures.labels(model=model).inc()
            _log.error("model.load_failed", model=model, error=type(error).__name__, detail=str(error)[:300])
            return False
        self.touch(engine)
        self._health.clear("model")
        _log.info("model.loaded", model=model, device=engine.facts.device, dtype=engine.facts.dtype)
        return True
