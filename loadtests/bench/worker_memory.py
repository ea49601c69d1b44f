"""`bench worker`'s long run in tiny steps: is memory flat, every queue within its bound, every second accounted for.

Pictures are checked as they arrive and then forgotten, and messages are made as they are received, so that what grows
in this process is the worker's. The window remembers some thousands of settled images; it is full before the slope is
taken.
"""

import argparse
import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtests.bench.rig import TUNING, Request, Rig, gpu_seconds, serving
from worker.engines.emulated import EmulatedEngine
from worker.pipeline import SETTLE_BOUND
from worker.window import REMEMBERED

MODEL = "emulated"
IMAGES = 10_000
BATCH = 8
STEPS = 2
STEP_S = 0.001
STORE_S = 0.005
LOOK_S = 0.01
BOUNDS = {
    "waiting": TUNING.window_images,
    "encode": TUNING.line_images,
    "upload": TUNING.line_images,
    "settle": SETTLE_BOUND,
    "replies": 256,
    "delete": 256,
}
Sample = tuple[int, float]
"""Images rendered so far, and resident kB."""


def measure(options: argparse.Namespace) -> Mapping[str, object]:
    """Fields `rss_slope_kb_per_1000`, `unattributed_pct`, `depths` and what they were measured on."""
    figures = asyncio.run(_measure(IMAGES // 10 if options.quick else IMAGES))
    print("memory: " + ", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
    return {"memory": figures}


async def _measure(images: int) -> Mapping[str, object]:
    engine = EmulatedEngine(model=MODEL, step_s=STEP_S, alpha=0.3, max_batch=BATCH, max_width=64, max_height=64)
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
    settled = [sample for sample in watch.samples if sample[0] >= min(images // 2, 1.2 * REMEMBERED)]
    return {
        "images": images,
        "images_per_s": round(rig.engine.images_per_s, 1),
        "rss_slope_kb_per_1000": round(1000 * slope(settled), 1),
        "rss_kb": [round(settled[0][1]), round(settled[-1][1])],
        "unattributed_pct": round(100 * spent.get("unattributed", 0.0) / wall_s, 3) if wall_s else 100.0,
        "gpu_seconds": {name: round(seconds, 3) for name, seconds in spent.items()},
        "depths": watch.deepest,
        "on_gpu": rig.engine.most,
        "over_bound": sorted(part for part, depth in watch.deepest.items() if depth > BOUNDS.get(part, depth)),
    }


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
            if not self.samples or done >= self.samples[-1][0] + 50:
                self.samples.append((done, _resident_kb()))
            await asyncio.sleep(LOOK_S)


def slope(samples: Sequence[Sample]) -> float:
    """kB per image by least squares; 0 for fewer than two samples."""
    if len(samples) < 2:
        return 0.0
    mean_x, mean_y = (sum(values) / len(samples) for values in zip(*samples, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread if spread else 0.0


def _resident_kb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024
