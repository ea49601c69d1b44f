"""Any text-to-image `DiffusionPipeline` of diffusers, a call at a time: one `step` is the whole call.

Safetensors only, no remote code, no safety checker. Each image has a CPU generator of its own, so its noise does not
depend on its mates; each call has a fresh scheduler, so no state crosses calls. torch and diffusers are imported by
`load`, on the GPU thread.

A size that the model's latents cannot express (the factor may be 16 where requests are multiples of 8) is rendered
at the next larger one and cut to the middle.
"""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from worker.engines.contract import (
    BatchKey,
    Capabilities,
    Done,
    EngineFacts,
    Picture,
    Progress,
    RenderJob,
    Report,
    Stepped,
)
from worker.engines.devices import Device, is_lost, is_out_of_memory
from worker.engines.opening import SCHEDULERS, fresh_scheduler, open_pipeline, revision_of
from worker.engines.pixels import cut, levels, renderable
from worker.engines.unable import Bounds, NoParking, NoProcess
from worker.errors import BadOutput, EngineError, EngineLost, OutOfMemory, Unsupported

if TYPE_CHECKING:
    import numpy as np


class _Unwanted(Exception):
    """Leaves the pipeline's call from within its step callback."""


class PipelineEngine(NoParking, NoProcess):
    """See the module's text."""

    def __init__(
        self,
        *,
        model: str,
        source: str,
        revision: str = "",
        config: str = "",
        dtype: str = "float32",
        device: str = "auto",
        max_batch: int = 8,
        max_width: int = 1024,
        max_height: int = 1024,
        bounds: Bounds | None = None,
        torch_threads: int = 0,
    ) -> None:
        self._source = source
        self._revision = revision
        self._config = config
        self._bounds = bounds or Bounds(max_width=max_width, max_height=max_height)
        self._wish = Device(name=device, dtype=dtype, threads=torch_threads)
        self._pipeline: Any = None
        self._accepted: frozenset[str] = frozenset()
        self._members: dict[str, RenderJob] = {}
        self._evicted: set[str] = set()
        self._used_scheduler = ""
        self.capabilities = Capabilities(max_batch=max_batch)
        self.facts = EngineFacts(engine="pipeline", model=model, model_revision=revision)

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._pipeline is not None

    def key(self, job: RenderJob) -> BatchKey:
        """All that one call takes once for the whole batch."""
        self._bounds.require(job)
        if job.scheduler and job.scheduler not in SCHEDULERS:
            raise Unsupported("unknown scheduler")
        size = (job.width, job.height)
        return (job.model, *size, job.num_inference_steps, job.guidance_scale, job.scheduler)

    def load(self) -> None:
        """Read the weights. Raises LoadFailed, whose text says what to do."""
        self._pipeline = None
        self._pipeline, device = open_pipeline(self._source, self._revision, self._wish, config=self._config)
        self._accepted = frozenset(inspect.signature(self._pipeline.__call__).parameters)
        self.facts = EngineFacts(
            engine="pipeline",
            model=self.facts.model,
            model_revision=revision_of(self._source, self._revision),
            dtype=self._wish.dtype,
            device=self._wish.describe(device),
            libraries=self._wish.libraries(),
        )

    def unload(self) -> None:
        """Let the weights go."""
        self._pipeline = None
        self.reset()

    def admit(self, jobs: Sequence[RenderJob]) -> None:
        """Between calls only."""
        if self._members:
            raise EngineError("a call is under way")
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
        middles = [cut(image, job.width, job.height) for job, image in zip(jobs, images, strict=True)]
        return Stepped(finished=[Done(job_id=job.id, result=image) for job, image in zip(jobs, middles, strict=True)])

    def evict(self, job_id: str) -> None:
        """A call cannot drop one image; it is left when all of them are unwanted."""
        if job_id in self._members:
            self._evicted.add(job_id)

    def decode(self, done: Done) -> Picture:
        """Floats in [0, 1], height x width x 3, to bytes. Raises BadOutput for NaN and other shapes."""
        import numpy as np  # noqa: PLC0415  (with the model libraries)

        image: Any = done.result
        if image.ndim != 3 or image.shape[2] != 3:
            raise BadOutput("the model gave no RGB picture")
        if not np.isfinite(image).all():
            raise BadOutput("the model gave numbers that are not finite")
        pixels = levels(image).astype(np.uint8)
        height, width, _ = pixels.shape
        return Picture(width=width, height=height, rgb=pixels.tobytes(), scheduler=self._used_scheduler)

    def reset(self) -> None:
        """Forget the members, and give memory back to the device. Raises EngineLost."""
        self._members.clear()
        self._evicted.clear()
        self._wish.free()

    def _all_left(self) -> Stepped:
        left = list(self._members)
        self._members.clear()
        self._evicted.clear()
        return Stepped(evicted=left)

    def _call(self, jobs: Sequence[RenderJob], report: Report) -> "Sequence[np.ndarray[Any, Any]]":
        import torch  # noqa: PLC0415  (heavy)

        pipeline = self._pipeline
        first = jobs[0]
        own = pipeline.scheduler
        pipeline.scheduler = fresh_scheduler(own, first.scheduler)
        self._used_scheduler = type(pipeline.scheduler).__name__

        def on_step_end(_pipe: Any, step: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            report(Progress(steps={job.id: step + 1 for job in jobs}))
            if all(job.id in self._evicted for job in jobs):
                raise _Unwanted
            return kwargs

        wishes: dict[str, Any] = {
            "prompt": [job.prompt for job in jobs],
            "negative_prompt": [job.negative_prompt for job in jobs],
            "width": self._renderable(first.width),
            "height": self._renderable(first.height),
            "num_inference_steps": first.num_inference_steps,
            "guidance_scale": first.guidance_scale,
            "generator": [torch.Generator("cpu").manual_seed(job.seed) for job in jobs],
            "output_type": "np",
            "callback_on_step_end": on_step_end,
        }
        try:
            result = pipeline(**{name: value for name, value in wishes.items() if name in self._accepted})
        finally:
            pipeline.scheduler = own
        images: Sequence[np.ndarray[Any, Any]] = result.images
        return images

    def _renderable(self, side: int) -> int:
        return renderable(side, int(getattr(self._pipeline, "vae_scale_factor", 8)))
