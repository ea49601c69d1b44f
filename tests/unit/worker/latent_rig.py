"""The latent engine over real pipelines, for tests: altered copies of a model, jobs, and diffusers' own pictures."""

import json
import shutil
from pathlib import Path
from typing import Any

from worker.engines.base import WeightSource
from worker.engines.contract import Picture, RenderJob
from worker.engines.devices import Device
from worker.engines.latent.engine import LatentEngine
from worker.engines.schedulers import fresh_scheduler


def opened(folder: Path) -> LatentEngine:
    made = LatentEngine(WeightSource(model="m", source=str(folder)), Device(name="cpu", threads=1), max_batch=4)
    made.load()
    return made


def changed(folder: Path, to: Path, file: str, **options: Any) -> Path:
    """A copy of a model whose configuration says something else."""
    shutil.copytree(folder, to)
    config = json.loads((to / file).read_text())
    (to / file).write_text(json.dumps({**config, **options}))
    return to


def job(number: int = 0, prompt: str = "", **more: Any) -> RenderJob:
    fields: dict[str, Any] = {
        "id": f"g_{number}/0",
        "model": "m",
        "width": 64,
        "height": 64,
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
        "seed": number,
    }
    return RenderJob(**{**fields, **more}, prompt=prompt or f"picture {number}")


def rendered(engine: LatentEngine, *jobs: RenderJob) -> dict[str, Picture]:
    engine.admit(jobs)
    pictures: dict[str, Picture] = {}
    while len(pictures) < len(jobs):
        pictures.update({done.job_id: engine.decode(done) for done in engine.step(lambda _: None).finished})
    return pictures


def by_diffusers(folder: Path, *jobs: RenderJob) -> dict[str, bytes]:
    """Each picture alone, by the bare pipeline."""
    import diffusers
    import numpy as np
    import torch

    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    own = pipeline.scheduler
    pictures = {}
    for each in jobs:
        pipeline.scheduler = fresh_scheduler(own, each.scheduler)
        image = pipeline(
            prompt=[each.prompt],
            negative_prompt=[each.negative_prompt],
            width=each.width,
            height=each.height,
            num_inference_steps=each.num_inference_steps,
            guidance_scale=each.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(each.seed)],
            output_type="np",
        ).images[0]
        pictures[each.id] = (image * 255).round().astype(np.uint8).tobytes()
    return pictures


def apart(one: bytes, other: bytes) -> int:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))
