"""Any text-to-image `DiffusionPipeline` of diffusers, one call at a time: one `step` is the whole call.

Safetensors only, no remote code, no safety checker. Each image has a CPU generator of its own, so its noise does not
depend on the rest of the batch; each call has a fresh scheduler, so no state crosses calls. torch and diffusers are
imported by `load`, on the GPU thread. `capabilities` and `call` say how a class is called and what it cannot do.

A size that the model's latents cannot express (the factor may be 16 or 32 where requests are multiples of 8) is
rendered at the next larger one, of which the middle is cut out.
"""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from schema import schedulers
from worker.engines.base import Bounds, NoParking, NoProcess, WeightSource
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
from worker.engines.errors import BadOutput, EngineError, EngineLost, Incapable, LoadFailed, OutOfMemory
from worker.engines.loading import open_pipeline, revision_of
from worker.engines.pipeline import call as pipeline_call
from worker.engines.pipeline import capabilities
from worker.engines.pipeline.capabilities import ModelFacts
from worker.engines.pixels import cut, levels
from worker.engines.schedulers import fresh_scheduler
from worker.engines.signs import Signs, modules_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

_ROUNDED_UP_PX: Final = 64
"""A pipeline may round a side up by less than this; a larger picture is not the requested one."""


class _Unwanted(Exception):
    """Leaves the pipeline's call from within its step callback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What `Done` carries: floats in [0, 1], height x width x channels, cut to the size that was asked for."""

    pixels: "np.ndarray[Any, Any]"
    scheduler: str
    made: Made


class PipelineEngine(NoParking, NoProcess):
    """Runs each batch as one call of a stock pipeline."""

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
        self._pipeline: Any = None
        self._asked: ModelFacts | None = None
        self._signs: Signs | None = None
        self._members: dict[str, RenderJob] = {}
        self._evicted: set[str] = set()
        self._most = max_batch
        self.capabilities = Capabilities(max_batch=max_batch)
        self.facts = EngineFacts(engine="pipeline", model=weights.model, model_revision=weights.revision)

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._pipeline is not None

    def key(self, job: RenderJob) -> BatchKey:
        """Everything that one call takes once for the whole batch. Raises Unsupported."""
        self._bounds.require(job)
        if self._asked is not None:
            pipeline_call.require(self._asked, job)
        elif job.scheduler and job.scheduler not in schedulers.NAMES:
            raise Incapable(f"scheduler must be one of {', '.join(schedulers.NAMES)}")
        size = (job.width, job.height)
        # Without a negative prompt the argument is left out, which is not the same as "": SDXL then uses zeros.
        away = bool(job.negative_prompt)
        return (job.model, *size, job.num_inference_steps, job.guidance_scale, job.scheduler, away)

    def look(self) -> None:
        """Learn from the folder what the model can do, without its weights. Only `load` reports a bad folder."""
        self._learn(capabilities.inspect(self._weights.source, self._weights.config))

    def load(self) -> None:
        """Read the weights. Raises LoadFailed, whose text says what to do."""
        self._pipeline = None
        pipeline, device = open_pipeline(
            self._weights.source, self._weights.revision, self._device, config=self._weights.config
        )
        asked = capabilities.of_pipeline(pipeline)
        if asked.problem:
            raise LoadFailed(f"{self._weights.source}: {asked.problem}")
        self._learn(asked)
        self._pipeline, self._signs = pipeline, Signs(modules_of(pipeline))
        self.facts = replace(
            self.facts,
            model_revision=revision_of(self._weights.source, self._weights.revision),
            dtype=self._device.dtype,
            device=self._device.describe(device),
            libraries=self._device.libraries(),
        )

    def unload(self) -> None:
        """Let the weights go."""
        self._pipeline = self._signs = None
        self.reset()

    def admit(self, jobs: Sequence[RenderJob]) -> None:
        """Takes the batch of the next call. Raises EngineError while there are members, and Incapable."""
        if self._members:
            raise EngineError("a call is under way")
        if self._asked is not None:
            for job in jobs:
                pipeline_call.require(self._asked, job)
        for job in jobs:
            self._evicted.discard(job.id)
            self._members[job.id] = job

    def step(self, report: Report) -> Stepped:
        """The whole call. Raises OutOfMemory, EngineLost, or what the model raises."""
        jobs = list(self._members.values())
        wanted = [job for job in jobs if job.id not in self._evicted]
        if not wanted:
            return self._all_left()
        out_of_memory = False
        try:
            images = self._call(jobs, report)
        except _Unwanted:
            return self._all_left()
        except Exception as error:
            if is_lost(error):
                raise EngineLost(type(error).__name__) from None
            if not is_out_of_memory(error):
                raise
            out_of_memory = True
        if out_of_memory:  # outside the except block: its traceback holds tensors
            self.reset()
            raise OutOfMemory
        self._members.clear()
        self._evicted.clear()
        return Stepped(finished=[Done(job_id=job.id, result=each) for job, each in zip(jobs, images, strict=True)])

    def evict(self, job_id: str) -> None:
        """A call cannot drop a single image; it is abandoned once none of its images is wanted."""
        if job_id in self._members:
            self._evicted.add(job_id)

    def decode(self, done: Done) -> Picture:
        """Floats in [0, 1], height x width x 3, to bytes. Raises BadOutput for NaN and other shapes."""
        import numpy as np  # noqa: PLC0415  (with the model libraries)

        rendered = done.result
        assert isinstance(rendered, Rendered)  # noqa: S101  (our own `step` made it)
        image = rendered.pixels
        if image.ndim != 3 or image.shape[2] != 3:
            raise BadOutput("the model gave no RGB picture")
        if not np.isfinite(image).all():
            raise BadOutput("the model gave numbers that are not finite")
        pixels = levels(image).astype(np.uint8)
        height, width, _ = pixels.shape
        return Picture(
            width=width, height=height, rgb=pixels.tobytes(), scheduler=rendered.scheduler, made=rendered.made
        )

    def reset(self) -> None:
        """Forget the members, and give memory back to the device. Raises EngineLost."""
        self._members.clear()
        self._evicted.clear()
        self._device.free()

    def _all_left(self) -> Stepped:
        left = list(self._members)
        self._members.clear()
        self._evicted.clear()
        return Stepped(evicted=left)

    def _learn(self, asked: ModelFacts | None) -> None:
        self._asked = asked
        able = ModelAbilities() if asked is None or asked.problem else asked.abilities()
        self.facts = replace(self.facts, abilities=able)
        most = 1 if asked is not None and asked.one_prompt else self._most
        self.capabilities = replace(self.capabilities, max_batch=most)

    def _call(self, jobs: Sequence[RenderJob], report: Report) -> "Sequence[Rendered]":
        import torch  # noqa: PLC0415  (heavy)

        asked, pipeline = self._asked, self._pipeline
        signs = self._signs
        assert asked is not None  # noqa: S101  (`load` has learned it)
        assert signs is not None  # noqa: S101  (and made these)
        begun = False

        def look_up() -> None:
            if all(job.id in self._evicted for job in jobs):
                raise _Unwanted

        def on_step(done: int) -> None:
            nonlocal begun
            begun = True
            report(Progress(steps={job.id: min(done, job.num_inference_steps) for job in jobs}))
            look_up()

        def on_sign() -> None:
            report(Progress(steps={}))
            look_up()

        def on_step_end(_pipe: Any, step: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            on_step(step + 1)
            return kwargs

        given = pipeline_call.arguments(asked, jobs, [torch.Generator("cpu").manual_seed(job.seed) for job in jobs])
        if asked.callback:
            given["callback_on_step_end"] = on_step_end
        with self._own_scheduler(jobs[0].scheduler) as scheduler, signs.heard(on_sign):
            if scheduler is not None and not asked.callback:
                pipeline_call.count_steps(scheduler, on_step)
            try:
                result = pipeline(**given)
            except (ValueError, TypeError, NotImplementedError) as error:
                if begun:
                    raise
                raise pipeline_call.refusal(error, jobs) from None
        images = self._whole(getattr(result, "images", None), jobs[0], given)
        return [self._rendered(image, job, asked, scheduler) for image, job in zip(images, jobs, strict=True)]

    @contextmanager
    def _own_scheduler(self, name: str) -> "Iterator[Any]":
        """Gives the pipeline a fresh scheduler for this call, if it has one, and puts its own back afterwards."""
        pipeline = self._pipeline
        own = getattr(pipeline, "scheduler", None)
        if own is None:
            yield None
            return
        pipeline.scheduler = fresh_scheduler(own, name)
        try:
            yield pipeline.scheduler
        finally:
            pipeline.scheduler = own

    @staticmethod
    def _whole(images: Any, job: RenderJob, given: "dict[str, Any]") -> "Sequence[np.ndarray[Any, Any]]":
        """The pictures as rendered. Raises Incapable if there are none, or if their size is not the one asked for."""
        if images is None or len(images) == 0 or getattr(images[0], "ndim", 0) != 3:
            raise Incapable("the pipeline gives no pictures")
        height, width = images[0].shape[:2]
        beyond = max(height - given["height"], width - given["width"])
        if height < job.height or width < job.width or beyond >= _ROUNDED_UP_PX:
            raise Incapable(f"the pipeline renders {width}x{height} where {job.width}x{job.height} is asked for")
        found: Sequence[np.ndarray[Any, Any]] = images
        return found

    @staticmethod
    def _rendered(image: Any, job: RenderJob, asked: ModelFacts, scheduler: Any) -> "Rendered":
        height, width = image.shape[:2]
        return Rendered(
            pixels=cut(image, job.width, job.height),
            scheduler=type(scheduler).__name__ if scheduler is not None else "",
            made=pipeline_call.made(asked, job, width, height),
        )
