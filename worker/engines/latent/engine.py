"""Our own denoising loop for Stable Diffusion 1.x and 2.x and the demo model: images of different step counts, seeds,
guidance values, schedulers and ages share each forward pass, and join, leave and park at any step.

This module holds members and threads; `model` and its parts hold the mathematics and are imported by `load`. The VAE
factor, sizes, noise and rounding are as in the `pipeline` engine, so both give the same picture within rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from worker.engines.base import Bounds, NoProcess, WeightSource
from worker.engines.contract import (
    BatchKey,
    Capabilities,
    Done,
    EngineFacts,
    Made,
    ModelAbilities,
    Picture,
    Progress,
    RenderJob,
    Report,
    Stepped,
)
from worker.engines.devices import Device, is_lost, is_out_of_memory
from worker.engines.errors import BadOutput, EngineError, EngineLost, Incapable, OutOfMemory
from worker.engines.loading import revision_of
from worker.engines.pixels import renderable
from worker.engines.schedulers import DISCRETE

if TYPE_CHECKING:
    from worker.engines.latent.decoder import Pending
    from worker.engines.latent.denoiser import LatentState
    from worker.engines.latent.model import LatentModel

_T = TypeVar("_T")
ABILITIES: Final = ModelAbilities(negative_prompt=True, guidance="cfg", guidance_off=1.0, schedulers=tuple(DISCRETE))
"""Abilities of Stable Diffusion 1.x and 2.x, until `load` finds out which schedulers a table can express."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Seat:
    """A member's place in the engine."""

    job: RenderJob
    key: BatchKey
    member: "LatentState"
    parked: bool = False

    @property
    def done(self) -> int:
        """Steps done, at most as many as requested: PLMS passes through the model once more than that."""
        return min(self.member.index, self.job.num_inference_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Developing:
    """The result in `Done`: a picture whose decoding has been requested."""

    pending: "Pending"
    scheduler: str
    made: Made


class LatentEngine(NoProcess):
    """Steps any mix of images of one batch key through the model."""

    def __init__(
        self,
        weights: WeightSource,
        device: Device,
        *,
        max_batch: int = 8,
        bounds: Bounds | None = None,
    ) -> None:
        self._weights = weights
        self._bounds = bounds or Bounds.square(1024)
        self._device = device
        self._model: LatentModel | None = None
        self._seats: dict[str, _Seat] = {}
        self._known: set[str] = set()
        self._evicted: set[str] = set()
        self.capabilities = Capabilities(join_midway=True, evict_one=True, park=True, max_batch=max_batch)
        self.facts = EngineFacts(
            engine="latent", model=weights.model, model_revision=weights.revision, abilities=ABILITIES
        )

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._model is not None

    def key(self, job: RenderJob) -> BatchKey:
        """Size and guidance on or off; steps, guidance values and schedulers may be mixed. Raises Unsupported."""
        self._bounds.require(job)
        known = self.facts.abilities.schedulers or tuple(DISCRETE)
        if job.scheduler and job.scheduler not in known:
            model = self._model
            why = model.schedules.refused.get(job.scheduler, "") if model is not None else ""
            raise Incapable(f"scheduler must be one of {', '.join(known)} for this model{f' ({why})' * bool(why)}")
        return (job.model, job.width, job.height, self._device.dtype, int(_guided(job)))

    def load(self) -> None:
        """Read the weights. Raises LoadFailed, whose text says what to do."""
        from worker.engines.latent.model import open_model  # noqa: PLC0415  (imports torch)

        self._model = None
        self._model, device = open_model(
            self._weights.source, self._weights.revision, self._device, config=self._weights.config
        )
        refused = self._model.schedules.refused
        names = tuple(name for name in DISCRETE if name not in refused)
        self.facts = replace(
            self.facts,
            abilities=replace(ABILITIES, size_factor=self._model.factor, schedulers=names),
            model_revision=revision_of(self._weights.source, self._weights.revision),
            dtype=self._device.dtype,
            device=self._device.describe(device),
            libraries=self._device.libraries(),
        )

    def unload(self) -> None:
        """Let the weights go."""
        self._model = None
        self.reset()

    def admit(self, jobs: Sequence[RenderJob]) -> None:
        """Encodes the texts and draws the noise; the next `step` is the first. Raises EngineError for mixed keys."""
        model = self._ready()
        keys = {self.key(job) for job in jobs}
        if len(keys | {seat.key for seat in self._running()}) > 1:
            raise EngineError("images of different keys cannot share a pass")
        ids = {job.id for job in jobs}
        self._evicted -= ids
        self._known |= ids  # before the slow encoding, so that an `evict` meanwhile is not ignored
        try:
            members = self._guarded(lambda: model.members(jobs, guided=_guided(jobs[0])) if jobs else [])
        except Exception:
            self._known -= ids
            raise
        for job, member in zip(jobs, members, strict=True):
            self._seats[job.id] = _Seat(job=job, key=self.key(job), member=member)

    def step(self, report: Report) -> Stepped:
        """One step of all members that are not parked. Raises OutOfMemory, EngineLost, or what the model raises."""
        model = self._ready()
        with model.signs.heard(lambda: report(Progress(steps={}))):
            return self._step(model, report)

    def _step(self, model: "LatentModel", report: Report) -> Stepped:
        evicted = self._drop()
        running = self._running()
        if not running:
            timed = self._guarded(model.rest)
            return Stepped(evicted=evicted, ahead=model.ahead, timed=timed)
        key = running[0].key
        timed = self._guarded(lambda: model.step([seat.member for seat in running], key))
        report(Progress(steps={seat.job.id: seat.done for seat in running}))
        evicted += self._drop()  # those evicted during the step, before anything is decoded for them
        done = self._guarded(lambda: self._develop(model))
        if not self._running():
            timed = self._guarded(model.rest) or timed
        return Stepped(finished=done, evicted=evicted, fits=model.memory.fits(key), ahead=model.ahead, timed=timed)

    def evict(self, job_id: str) -> None:
        """The member leaves by the end of the current step or, between steps, of the next one."""
        if job_id in self._known:
            self._evicted.add(job_id)

    def park(self, job_id: str) -> None:
        """The member keeps its latents, its solver's memory and its encoded prompt. Raises EngineError for others."""
        seat = self._seat(job_id)
        seat.member.keep()
        seat.parked = True

    def unpark(self, job_id: str) -> None:
        """Let a parked member continue. Raises EngineError while images of another key run."""
        seat = self._seat(job_id)
        if any(other.key != seat.key for other in self._running()):
            raise EngineError("images of different keys cannot share a pass")
        seat.parked = False

    def decode(self, done: Done) -> Picture:
        """On a GPU, waits for the rest of the decoding that `step` launched, but for no later step; on a CPU, decodes.
        Raises BadOutput for numbers that are not finite and for other shapes.
        """
        developing = done.result
        assert isinstance(developing, _Developing)  # noqa: S101  (our own `step` made it)
        pixels, finite = self._guarded(developing.pending.fetch)
        if not finite:
            raise BadOutput("the model gave numbers that are not finite")
        if pixels.ndim != 3 or pixels.shape[2] != 3:
            raise BadOutput("the model gave no RGB picture")
        height, width, _ = pixels.shape
        return Picture(
            width=width,
            height=height,
            rgb=pixels.numpy().tobytes(),
            scheduler=developing.scheduler,
            made=developing.made,
        )

    def reset(self) -> None:
        """Forget the members, and give memory back to the device. Raises EngineLost."""
        self._seats.clear()
        self._known.clear()
        self._evicted.clear()
        if self._model is not None:
            self._model.forget()
        self._device.free()

    def _ready(self) -> "LatentModel":
        if self._model is None:
            raise EngineError("the model is not loaded")
        return self._model

    def _seat(self, job_id: str) -> _Seat:
        if job_id not in self._seats:
            raise EngineError(f"{job_id}: not a member")
        return self._seats[job_id]

    def _running(self) -> list[_Seat]:
        return [seat for seat in self._seats.values() if not seat.parked]

    def _leave(self, job_id: str) -> None:
        del self._seats[job_id]
        self._known.discard(job_id)
        self._evicted.discard(job_id)

    def _drop(self) -> list[str]:
        """Remove evicted members, parked or not. Returns their ids."""
        left = [job_id for job_id in self._seats if job_id in self._evicted]
        for job_id in left:
            self._leave(job_id)
        return left

    def _develop(self, model: "LatentModel") -> list[Done]:
        """Remove the members that have done their last step and request their decoding."""
        finished = [seat for seat in self._running() if seat.member.finished]
        done = []
        for seat in finished:
            pending = model.begin(seat.member, seat.job, seat.key)
            made = _made(seat.job, model.factor)
            result = _Developing(pending=pending, scheduler=seat.member.schedule.scheduler, made=made)
            done.append(Done(job_id=seat.job.id, result=result))
        for seat in finished:
            self._leave(seat.job.id)
        return done

    def _guarded(self, work: Callable[[], _T]) -> _T:
        """Calls `work`; translates the device's errors to EngineLost and OutOfMemory."""
        try:
            return work()
        except Exception as error:
            if is_lost(error):
                raise EngineLost(type(error).__name__) from None
            if not is_out_of_memory(error):
                raise
        self.reset()  # outside the except block: its traceback holds tensors
        raise OutOfMemory


def _guided(job: RenderJob) -> bool:
    """Whether there is guidance: as in diffusers, only a scale above 1 means guidance."""
    return job.guidance_scale > 1


def _made(job: RenderJob, factor: int) -> Made:
    guided = _guided(job)
    return Made(
        guidance="cfg",
        guidance_scale=job.guidance_scale if guided else 0.0,
        negative_prompt=guided and bool(job.negative_prompt),
        width=renderable(job.width, factor),
        height=renderable(job.height, factor),
    )
