"""`bench worker`'s parts on the emulated GPU: the three loops beside the bare one."""

import argparse
import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from loadtests.bench.engine import TimedEngine
from loadtests.bench.rig import Request, bare, serving
from worker.engines.base import Bounds
from worker.engines.emulated import EmulatedEngine
from worker.tuning import Mode

MODEL = "emulated"
ALPHA = 0.3
"""Batching helps: a batch of 4 takes 1.9 times as long as one image."""
BATCH = 4
STEPS = 20
SIDE_PX = 256
STORE_S = 0.2
Figures = dict[str, float | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of GPU, and how many images to try it with."""

    batch_s: float
    images: int
    plain_images: int
    """The plain loop is slow, and its rate does not depend on how long it is watched."""

    def engine(self) -> EmulatedEngine:
        """A new engine, not loaded yet."""
        step_s = self.batch_s / STEPS / (1 - ALPHA + ALPHA * BATCH)
        return EmulatedEngine(model=MODEL, step_s=step_s, alpha=ALPHA, max_batch=BATCH, bounds=Bounds.square(SIDE_PX))


REQUEST = Request(model=MODEL, side_px=SIDE_PX, steps=STEPS)


def measure(options: argparse.Namespace) -> Mapping[str, object]:
    """Measures the case of 400 ms per batch, for which the floors are set."""
    images = 40 if options.quick else 400
    case = Case(batch_s=0.4, images=images, plain_images=images // 4)
    call_s = options.call_ms / 1000
    before = _bare(case, range(images // 2))
    modes = {mode.value: _loop(case, mode, call_s) for mode in (Mode.OVERLAPPED, Mode.BATCHED, Mode.PLAIN)}
    after = _bare(case, range(images // 2))
    bare_per_s = (before.images + after.images) / (before.seconds + after.seconds)
    ours = modes[Mode.OVERLAPPED.value]
    _say("bare", {"images_per_s": round(bare_per_s, 3), "images": before.images + after.images})
    return {
        "gpu_idle_pct": ours["gpu_idle_pct"],
        "ratio": round(ours["images_per_s"] / bare_per_s, 4),
        "images_per_s": ours["images_per_s"],
        "bare_images_per_s": round(bare_per_s, 3),
        "call_ms": options.call_ms,
        "modes": modes,
    }


def measure_seed_case(options: argparse.Namespace) -> Mapping[str, object]:
    """4 s per batch: what overlapping the upload gains where the upload takes a twentieth of the batch."""
    images = 8 if options.quick else 80
    case = Case(batch_s=4.0, images=images, plain_images=images // 8)
    modes = {
        mode.value: _loop(case, mode, options.call_ms / 1000) for mode in (Mode.OVERLAPPED, Mode.BATCHED, Mode.PLAIN)
    }
    gain = modes["overlapped"]["images_per_s"] / modes["batched"]["images_per_s"] - 1
    return {"seed_case": {**modes, "overlapped_over_batched_pct": round(100 * gain, 2)}}


def _bare(case: Case, numbers: range) -> TimedEngine:
    engine = case.engine()
    engine.load()
    return bare(engine, [REQUEST.job(number) for number in numbers], batch=BATCH)


def _loop(case: Case, mode: Mode, call_s: float) -> Figures:
    images = case.plain_images if mode is Mode.PLAIN else case.images
    timed = asyncio.run(_served(case, mode, images, call_s))
    figures: Figures = {
        "images_per_s": round(timed.images_per_s, 3),
        "gpu_idle_pct": round(timed.idle_pct, 3),
        "mean_batch": round(timed.mean_batch, 2),
        "images": timed.images,
    }
    _say(f"{case.batch_s} s per batch, {mode.value}", figures)
    return figures


async def _served(case: Case, mode: Mode, images: int, call_s: float) -> TimedEngine:
    async with serving(case.engine(), mode=mode, latency_s=STORE_S, call_s=call_s) as rig:
        rig.feed(REQUEST, range(images))
        await rig.done(deadline_s=60 + 3 * images * case.batch_s)
    rig.verify()
    return rig.engine


def _say(name: str, figures: Mapping[str, object]) -> None:
    print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
