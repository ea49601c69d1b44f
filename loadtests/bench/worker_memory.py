"""`bench worker`'s long run in tiny steps: is memory flat, every queue within its bound, every second accounted for.

Pictures are checked as they arrive and then dropped, and messages are made as they are received, so that only the
worker can make this process grow. The window remembers some thousands of settled images; it is full before slopes are
taken. There are two slopes: that of resident memory, which includes everything but moves by whole arenas, and that of
Python's allocated blocks, which shows a single object kept per image. Each is judged against the noise of its own fit.
Uncollected garbage is no leak, so each sample follows a collection; what was imported is frozen to make it cheap.
"""

import argparse
import asyncio
import gc
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from loadtests.bench.rig import TUNING, Request, Rig, gpu_seconds, serving
from worker.batching.policy import PARKED_PER_SEAT
from worker.engines.base import Bounds
from worker.engines.emulated import EmulatedEngine
from worker.holding.window import REMEMBERED
from worker.output.delivery import SETTLE_BOUND
from worker.output.stages import DeliveryLimits

MODEL = "emulated"
IMAGES = 10_000
BATCH = 8
STEPS = 2
STEP_S = 0.001
STORE_S = 0.005
LOOK_S = 0.01
SAMPLE_IMAGES = 100
MIN_SAMPLES = 20
ON_GPU = BATCH * (1 + PARKED_PER_SEAT) + 2 * BATCH + TUNING.line_images
"""Running images, parked ones, two batches that are not decoded yet, and those that enter the delivery."""
SIZES = DeliveryLimits(
    encoders=TUNING.encoders, uploads=TUNING.uploads, queued=TUNING.line_images, undeleted=TUNING.undeleted
)
IN_LINE = 2 * SIZES.queued + SIZES.encoders + SIZES.uploads + SIZES.settling + SIZES.deleting
"""Images in the delivery: in both of its queues, and in the hands of its tasks."""
BOUNDS = {
    "waiting": TUNING.window_images,
    "running": ON_GPU,
    "held": TUNING.window_images + BATCH + ON_GPU + IN_LINE,
    "encode": TUNING.line_images,
    "upload": TUNING.line_images,
    "settle": SETTLE_BOUND,
    "deletion": SETTLE_BOUND,
    "replies": 256,
    "delete": 256,
}
"""In images; a part that is not named here may hold none. A backlog before `settle` or `deletion` shows in `held`."""
ERRORS = 2
"""Standard errors of the fit that count as noise."""
ARENA_KB = 1024
"""Python takes memory from the system in arenas, and one new arena during the run is no leak. The steepest line fitted
to a single such step rises by 1.5 arenas over the run.
"""
BLOCKS_PER_1000 = 100.0
"""An object for every tenth image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """At a moment: images rendered so far, resident kB, and blocks in use."""

    images: int
    rss_kb: float
    blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Of a straight line: its slope, and the standard error of that."""

    slope: float
    error: float


def measure(options: argparse.Namespace) -> Mapping[str, object]:
    """Field `memory`: slopes, `unattributed_pct`, `depths` and what they were measured on."""
    gc.collect()
    gc.freeze()
    try:
        figures = asyncio.run(_measure(IMAGES // 10 if options.quick else IMAGES))
    finally:
        gc.unfreeze()
    print("memory: " + ", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
    return {"memory": figures}


async def _measure(images: int) -> Mapping[str, object]:
    engine = EmulatedEngine(model=MODEL, step_s=STEP_S, alpha=0.3, max_batch=BATCH, bounds=Bounds.square(64))
    async with serving(engine, latency_s=STORE_S, keep=False) as rig:
        watch = _Watch(rig)
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(watch.run(), name="bench.watch")
            rig.feed(Request(model=MODEL, side_px=64, steps=STEPS), range(images))
            await rig.done(deadline_s=600)
            looking.cancel()
        spent = gpu_seconds(rig.worker.metrics)
    rig.verify()
    wall_s = sum(seconds for name, seconds in spent.items() if name != "overlapping")
    return {
        "images": images,
        "images_per_s": round(rig.engine.images_per_s, 1),
        **slopes(watch.samples),
        "unattributed_pct": round(100 * spent.get("unattributed", 0.0) / wall_s, 3) if wall_s else 100.0,
        "gpu_seconds": {name: round(seconds, 3) for name, seconds in spent.items()},
        "depths": watch.deepest,
        "on_gpu": rig.engine.most,
        "over_bound": over_bound(watch.deepest),
    }


def over_bound(depths: Mapping[str, int]) -> list[str]:
    """Parts of the worker that held more than they may."""
    return sorted(part for part, depth in depths.items() if depth > BOUNDS.get(part, 0))


def slopes(samples: Sequence[Sample]) -> dict[str, object]:
    """Both slopes, per 1,000 images, what noise explains of them, and by how much they are steeper than that.

    A run too short for the window to fill is not judged: until then every image leaves something behind.
    """
    settled = [sample for sample in samples if sample.images >= 1.2 * REMEMBERED]
    judged = len(settled) >= MIN_SAMPLES
    chosen = settled if judged else samples
    thousands = (chosen[-1].images - chosen[0].images) / 1000
    figures: dict[str, object] = {"rss_kb": [round(chosen[0].rss_kb), round(chosen[-1].rss_kb)]}
    lines = {
        "rss_kb": ([(each.images, each.rss_kb) for each in chosen], 1.5 * ARENA_KB / thousands),
        "blocks": ([(each.images, float(each.blocks)) for each in chosen], BLOCKS_PER_1000),
    }
    for name, (points, allowance) in lines.items():
        line = fit(points)
        steep, noise = 1000 * line.slope, 1000 * ERRORS * line.error + allowance
        figures |= {f"{name}_per_1000": round(steep, 1), f"{name}_per_1000_noise": round(noise, 1)}
        if judged:
            figures[f"{name}_per_1000_beyond_noise"] = round(max(0.0, steep - noise), 1)
    return figures


class _Watch:
    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.deepest: dict[str, int] = {}
        self.samples: list[Sample] = []

    async def run(self) -> None:
        while True:
            for part, depth in self._rig.worker.metrics.depths().items():
                self.deepest[part] = max(depth, self.deepest.get(part, 0))
            done = self._rig.engine.images
            if not self.samples or done >= self.samples[-1].images + SAMPLE_IMAGES:
                gc.collect()
                self.samples.append(Sample(images=done, rss_kb=_resident_kb(), blocks=sys.getallocatedblocks()))
            await asyncio.sleep(LOOK_S)


def fit(points: Sequence[tuple[float, float]]) -> Fit:
    """Least squares. Memory samples are autocorrelated, so the standard error is that of fewer independent ones:
    n·(1−r)/(1+r), with r the correlation of successive residuals. Fewer than three points give an infinite error.
    """
    many = len(points)
    if many < 3:
        return Fit(slope=0.0, error=math.inf)
    mean_x, mean_y = (sum(values) / many for values in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    residuals = [y - mean_y - slope * (x - mean_x) for x, y in points]
    squares = sum(each**2 for each in residuals)
    together = sum(one * other for one, other in pairwise(residuals)) / squares if squares else 0.0
    together = min(max(together, 0.0), 0.99)
    error = math.sqrt(squares / (many - 2) / spread * (1 + together) / (1 - together))
    return Fit(slope=slope, error=error)


def _resident_kb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024
