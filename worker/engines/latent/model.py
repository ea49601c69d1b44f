"""A Stable Diffusion pipeline of diffusers taken apart into conditioning, denoiser, schedules and decoder; refuses
pipelines that these cannot reproduce. Only `engine.LatentEngine` calls it, on the GPU thread, and imports it in `load`.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from worker.engines.contract import RenderJob, StepTime
from worker.engines.devices import Device, make_current
from worker.engines.errors import LoadFailed
from worker.engines.latent.conditioning import StableDiffusionConditioning
from worker.engines.latent.cuda import CudaProbe, Pace, StreamDecoder
from worker.engines.latent.decoder import Pending, VaeDecoder
from worker.engines.latent.denoiser import Denoiser, LatentState, UNet, moved
from worker.engines.latent.memory import MemoryCurve
from worker.engines.latent.solver_table import Schedules
from worker.engines.loading import STEP_LEVEL_CLASSES, open_pipeline
from worker.engines.pixels import renderable
from worker.engines.signs import Signs


class LatentModel:
    """The weights, and what has been measured with them; holds no image. Raises LoadFailed for other pipelines."""

    def __init__(self, pipeline: Any, device: str) -> None:
        problem = _problem(pipeline)
        if problem:
            raise LoadFailed(f'{problem}; use engine = "pipeline"')
        self.schedules = Schedules(pipeline.scheduler)
        self._device = device
        self._dtype = pipeline.unet.dtype
        self._channels = int(pipeline.unet.config.in_channels)
        self.factor = int(pipeline.vae_scale_factor)
        self._conditioning = StableDiffusionConditioning(pipeline, device)
        self._denoiser = Denoiser(UNet(pipeline.unet), device=device, dtype=self._dtype)
        decoder = VaeDecoder(pipeline.vae)
        on_cuda = device != "cpu"
        if not on_cuda:  # measured: the UNet takes 1 to 8 % less time, the VAE 10 to 40 %
            for part in (pipeline.unet, pipeline.vae):
                part.to(memory_format=torch.channels_last)
        self._decoder = StreamDecoder(decoder) if on_cuda else decoder
        self._pace = Pace() if on_cuda else None
        self.signs = Signs((pipeline.text_encoder, pipeline.unet, pipeline.vae))
        self.memory = MemoryCurve(CudaProbe() if on_cuda else None)

    @property
    def ahead(self) -> bool:
        """Whether `step` and `begin` only launch work and return before the device has done it."""
        return self._pace is not None

    @torch.inference_mode()
    def members(self, jobs: Sequence[RenderJob], *, guided: bool) -> list[LatentState]:
        """Jobs of one size, ready for their first step. Raises Unsupported."""
        make_current(self._device)
        schedules = [self.schedules.of(job.scheduler, job.num_inference_steps) for job in jobs]
        wanted = self._conditioning.of([job.prompt for job in jobs])
        unwanted = self._conditioning.of([job.negative_prompt for job in jobs]) if guided else [None] * len(jobs)
        return [
            LatentState(
                schedule=schedule,
                state=self._noise(job, schedule.start),
                wanted=towards,
                unwanted=away,
                guidance=job.guidance_scale,
            )
            for job, schedule, towards, away in zip(jobs, schedules, wanted, unwanted, strict=True)
        ]

    @torch.inference_mode()
    def step(self, members: Sequence[LatentState], kind: Hashable) -> StepTime | None:
        """One step of each member; batches of one `kind` take the same memory per image.

        Returns the time of the step before by the device's clock; None without one, and on a CPU.
        """
        make_current(self._device)

        def launch() -> None:
            with self.memory.step(kind, len(members)):
                self._denoiser.step(members)

        if self._pace is not None:
            return self._pace.step(len(members), launch)
        launch()
        return None

    @torch.inference_mode()
    def begin(self, member: LatentState, job: RenderJob, kind: Hashable) -> Pending:
        """Request the decoding of a finished member, which on a GPU runs beside the others' steps."""
        make_current(self._device)
        with self.memory.decoding(kind):
            return self._decoder.begin(member.state[0], job.width, job.height)

    def rest(self) -> StepTime | None:
        """Call when no member is left to step: drops the batch's tensors and waits for the last step, since no later
        step will. The device decodes pictures meanwhile. Returns the time of that step; None without one.
        """
        self._denoiser.forget()
        return self._pace.rest() if self._pace is not None else None

    def forget(self) -> None:
        """Hold no batch's tensors, and wait for nothing."""
        self._denoiser.forget()
        if self._pace is not None:
            self._pace.forget()

    def _noise(self, job: RenderJob, start: float) -> torch.Tensor:
        """The initial state: noise as diffusers' `randn_tensor` draws it from a CPU generator, in the model's dtype."""
        shape = (1, self._channels, self._latent(job.height), self._latent(job.width))
        noise = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(job.seed), dtype=self._dtype)
        state = torch.zeros((self.schedules.slots, *shape[1:]))
        state[0] = noise[0].float() * start
        return moved(state, torch.device(self._device))

    def _latent(self, side: int) -> int:
        return renderable(side, self.factor) // self.factor


def open_model(source: str, revision: str, wish: Device, *, config: str = "") -> tuple[LatentModel, str]:
    """The model and its device. Raises LoadFailed, whose text says what to do."""
    pipeline, device = open_pipeline(source, revision, wish, config=config, classes=STEP_LEVEL_CLASSES)
    return LatentModel(pipeline, device), device


def _problem(pipeline: Any) -> str:
    """Why this pipeline cannot be taken apart here; empty if it can."""
    parts = {"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel"}
    for name, kind in parts.items():
        if type(getattr(pipeline, name)).__name__ != kind:
            return f"its {name} is a {type(getattr(pipeline, name)).__name__}, not a {kind}"
    config = pipeline.unet.config
    if config.in_channels != pipeline.vae.config.latent_channels:
        return "its UNet takes more than latents"
    if config.addition_embed_type not in (None, "text"):
        return f"its UNet asks for an added embedding of type {config.addition_embed_type}"
    for option in ("class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim"):
        if config.get(option) is not None:
            return f"its UNet asks for {option} = {config.get(option)}"
    return ""
