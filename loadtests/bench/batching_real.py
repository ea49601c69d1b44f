"""`bench batching --real`: cells in real time, through the production worker from queue to store.

The same Poisson arrivals go to the worker (an image is done when the engine has decoded it) and, in virtual time on
the engine's own curve, to the best static batches and to the admission policy alone. The ratio to the first is the
gain; the ratio to the second shows how close the real loop comes to virtual time. Two cells run on the emulated GPU, a
step of 20 ms, and one on this repository's model with one torch thread, whose steps and decoding are measured first.
"""

import argparse
import asyncio
import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO

from PIL import Image

from infra import models
from loadtests.bench.batching_sim import (
    LIMIT,
    Crowd,
    SimulatedRun,
    figures,
    poisson,
    ratios,
    static,
    static_per_s,
    stepwise,
)
from loadtests.bench.batching_sim import times_s as curve_s
from loadtests.bench.rig import Check, Request, emulated_check, serving
from loadtests.bench.worker_demo import MODELS
from worker.engines.base import Bounds
from worker.engines.contract import Engine
from worker.engines.emulated import EmulatedEngine
from worker.engines.factory import build

SCALE = 0.4
"""Of the virtual cells' 50 ms per step: shorter cells, and steps that are still far above a worker's own work."""
LOAD = 0.7
CAPS = (1, 2, 4, 8)
SIDE_PX = 64
CURVE_STEPS = 6
DEMO_MIX = (4, 12, 20)
Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What goes to an engine, and what it can do: `times` by batch size, and the decoding of each picture."""

    name: str
    times: Sequence[float]
    decode_s: float
    mix: Sequence[int]
    images: int
    request: Request
    check: Check


def run(options: argparse.Namespace) -> Json:
    """Three cells, one after the other."""
    images = 30 if options.quick else 300
    cells = [_emulated(0.5, (4, 30, 50), images, options.seed), _emulated(0.3, (20, 30, 50), images, options.seed)]
    return {"bench": "batching", "real": [*cells, _demo(20 if options.quick else 80, options.seed)]}


def _emulated(alpha: float, mix: Sequence[int], images: int, seed: int) -> Json:
    times = [SCALE * each for each in curve_s(alpha)]
    engine = EmulatedEngine(
        model="emulated", step_s=times[1], alpha=alpha, max_batch=LIMIT, bounds=Bounds.square(SIDE_PX)
    )
    request = Request(model="emulated", side_px=SIDE_PX, steps=1)
    cell = Cell(
        name=f"emulated, alpha {alpha}, t(1) = {1000 * times[1]:.0f} ms",
        times=times,
        decode_s=0.0,
        mix=mix,
        images=images,
        request=request,
        check=emulated_check,
    )
    return _measured(cell, engine, seed)


def _demo(images: int, seed: int) -> Json:
    os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is first imported
    entry = models.load(MODELS)[0].model_copy(update={"engine": "latent", "max_batch": LIMIT})
    engine = build(entry, torch_threads=1)
    engine.load()
    request = Request(model=entry.name, side_px=entry.width, steps=1, guidance_scale=entry.guidance_scale)
    times, decode_s = _curve(engine, request)
    cell = Cell(
        name=f"demo model, {entry.width} px, one torch thread",
        times=times,
        decode_s=decode_s,
        mix=DEMO_MIX,
        images=images,
        request=request,
        check=partial(_of_size, request.side_px),
    )
    return _measured(cell, engine, seed)


def _curve(engine: Engine, request: Request) -> tuple[list[float], float]:
    """Medians of a step by batch size, and of a decoding; the first step of each size warms."""
    times, decodings = [0.0], list[float]()
    for size in range(1, LIMIT + 1):
        engine.admit([_with_steps(request, CURVE_STEPS).job(number) for number in range(size)])
        steps, finished = list[float](), 0
        while finished < size:
            began_s = time.monotonic()
            done = engine.step(lambda _: None).finished
            steps.append(time.monotonic() - began_s)
            for each in done:
                began_s = time.monotonic()
                engine.decode(each)
                decodings.append(time.monotonic() - began_s)
            finished += len(done)
        times.append(max(times[-1], statistics.median(steps[1:])))
    return times, statistics.median(decodings)


def _measured(cell: Cell, engine: Engine, seed: int) -> Json:
    capacity = max(static_per_s(cell.times, cell.mix, cap, cell.decode_s) for cap in CAPS)
    crowd = poisson(random.Random(seed), cell.mix, cell.images, LOAD * capacity)
    baseline, cap = min(((figures(static(crowd, cell.times, cap, cell.decode_s)), cap) for cap in CAPS), key=_p50)
    virtual = figures(stepwise(crowd, cell.times, decode_s=cell.decode_s))
    sojourns, mean_batch = asyncio.run(_served(cell, engine, crowd))
    ours = figures(SimulatedRun(sojourns_s=sojourns, makespan_s=0.0))
    result: Json = {
        "cell": cell.name,
        "load": LOAD,
        "mix": "/".join(map(str, cell.mix)),
        "images": cell.images,
        **ratios(ours, baseline),
        "baseline_cap": cap,
        "over_virtual": {name: round(ours[name] / virtual[name], 3) for name in ours},
        **{f"{name}_s": round(value, 3) for name, value in ours.items()},
        "mean_batch": round(mean_batch, 2),
        "curve_ms": [round(1000 * each, 1) for each in cell.times[1:]],
        "decode_ms": round(1000 * cell.decode_s, 1),
    }
    print(f"{cell.name}: {result}", flush=True)
    return result


async def _served(cell: Cell, engine: Engine, crowd: Crowd) -> tuple[list[float], float]:
    """Seconds from arrival to decoded picture, by image."""
    done_s: dict[str, float] = {}

    def heard(name: str, ids: Sequence[str], _began_s: float, ended_s: float) -> None:
        if name == "decode":
            done_s.update(dict.fromkeys(ids, ended_s))

    async with serving(engine, check=cell.check) as rig:
        rig.engine.on_span = heard
        began_s = time.monotonic()
        for number, (arrival_s, steps) in enumerate(zip(crowd.arrivals_s, crowd.steps, strict=True)):
            await asyncio.sleep(began_s + arrival_s - time.monotonic())
            rig.feed(_with_steps(cell.request, steps), range(number, number + 1))
        await rig.done(deadline_s=120)
    rig.verify()
    ids = [cell.request.job(number).id for number in range(cell.images)]
    sojourns = [done_s[job_id] - began_s - at for job_id, at in zip(ids, crowd.arrivals_s, strict=True)]
    return sojourns, rig.engine.mean_batch


def _with_steps(request: Request, steps: int) -> Request:
    return Request(model=request.model, side_px=request.side_px, steps=steps, guidance_scale=request.guidance_scale)


def _of_size(side_px: int, number: int, data: bytes) -> str:  # noqa: ARG001  (a Check)
    with Image.open(BytesIO(data)) as image:
        image.load()
        return "" if image.size == (side_px, side_px) else f"the picture is of {image.size}"


def _p50(each: tuple[dict[str, float], int]) -> float:
    return each[0]["p50"]
