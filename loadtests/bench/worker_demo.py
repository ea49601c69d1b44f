"""`bench worker`'s part on a real model: the worker from message to upload beside stock diffusers in the same batches.

Both sides have one torch thread, the same model, sizes, steps, guidance and prompts, and alternate in one process; the
bare side makes PIL pictures and encodes none. Every image has a prompt that neither side has seen before, so that
caching encoded texts gains nothing. A process that only spins keeps the last core busy, so that the worker's own work
competes for CPU, as on a machine where every core is in use.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from infra import models
from loadtests.bench.rig import Request, serving
from worker.engines.contract import Engine
from worker.engines.factory import build

MODELS = Path(__file__).parents[2] / "infra" / "models.toml"
BATCH = 4
IMAGES = 32
STORE_S = 0.2
SPIN = "import os\nos.sched_setaffinity(0, {%d})\nparent = os.getppid()\nwhile os.getppid() == parent:\n    pass"


def measure(options: argparse.Namespace) -> Mapping[str, object]:
    """Measures the result's field `demo_model`."""
    os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is first imported
    entry = models.load(MODELS)[0]
    entry = entry.model_copy(update={"max_batch": BATCH, **({"engine": options.engine} if options.engine else {})})
    request = Request(
        model=entry.name,
        side_px=entry.width,
        steps=entry.num_inference_steps,
        guidance_scale=entry.guidance_scale,
    )
    rounds = 2 if options.quick else options.rounds
    with _busy_core(wanted=not options.no_load) as load:
        figures = _alternate(entry, request, rounds)
    figures |= {"engine": entry.engine, "batch": BATCH, "px": entry.width, "steps": request.steps, "load": load}
    print("demo: " + ", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
    return {"demo_model": figures}


def _alternate(entry: models.ModelEntry, request: Request, rounds: int) -> dict[str, object]:
    engine: Engine = build(entry, torch_threads=1)
    pipeline = _stock(entry.source)
    ours: list[float] = []
    idle: list[float] = []
    plain: list[float] = []
    _render(pipeline, request, range(BATCH))  # warm
    asyncio.run(_serve(engine, request, range(BATCH)))
    for number in range(rounds):
        unheard_of = replace(request, first_prompt=BATCH + number * IMAGES)
        plain.append(_render(pipeline, unheard_of, range(IMAGES)))
        per_s, idle_pct = asyncio.run(_serve(engine, unheard_of, range(IMAGES)))
        ours.append(per_s)
        idle.append(idle_pct)
        print(f"demo: ours {per_s:.3f}/s, idle {idle_pct:.2f} %; bare {plain[-1]:.3f}/s", flush=True)
    ratios = [one / other for one, other in zip(ours, plain, strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(each, 4) for each in ratios],
        "images_per_s": round(statistics.median(ours), 3),
        "bare_images_per_s": round(statistics.median(plain), 3),
        "gpu_idle_pct": round(statistics.median(idle), 3),
    }


def _stock(source: str) -> Any:
    import torch  # noqa: PLC0415  (heavy)
    from diffusers import DiffusionPipeline  # noqa: PLC0415  (heavy)

    torch.set_num_threads(1)
    pipeline = DiffusionPipeline.from_pretrained(source, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _render(pipeline: Any, request: Request, numbers: range) -> float:
    """Images a second of the bare loop."""
    import torch  # noqa: PLC0415  (heavy)

    began_s = time.monotonic()
    for at in numbers[::BATCH]:
        made = pipeline(
            prompt=[request.prompt(number) for number in range(at, at + BATCH)],
            width=request.side_px,
            height=request.side_px,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            generator=[torch.Generator().manual_seed(number) for number in range(at, at + BATCH)],
        ).images
        if [image.size for image in made] != [(request.side_px, request.side_px)] * BATCH:
            raise RuntimeError("the bare loop made other pictures than were asked for")
    return len(numbers) / (time.monotonic() - began_s)


async def _serve(engine: Engine, request: Request, numbers: range) -> tuple[float, float]:
    """Images a second of the worker, and the share of the time in which the GPU thread was idle."""
    side_px = request.side_px

    def check(_: int, data: bytes) -> str:
        with Image.open(BytesIO(data)) as image:
            return "" if (image.format, image.size) == ("PNG", (side_px, side_px)) else "of another kind"

    async with serving(engine, check=check, latency_s=STORE_S) as rig:
        rig.feed(request, numbers)
        await rig.done(deadline_s=600)
    rig.verify()
    return rig.engine.images_per_s, rig.engine.idle_pct


@contextmanager
def _busy_core(*, wanted: bool) -> Iterator[str]:
    """A spinning process pinned to the last core, which ends with this one; what to call it."""
    if not wanted:
        yield "none"
        return
    core = max(os.sched_getaffinity(0))
    spinning = subprocess.Popen([sys.executable, "-c", SPIN % core])
    try:
        yield f"a spinning process pinned to core {core}"
    finally:
        spinning.kill()
        spinning.wait()
