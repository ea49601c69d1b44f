"""`just timeline`: runs the worker on the emulated GPU in one mode or in all, and draws what it did when.

The worker is the production one over a queue and a store in memory, each of the latency asked for. The pictures of
several modes stand over one time axis, so that the plain loop, batching, and batching with overlap can be compared.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.bench.engine import TimedEngine
from loadtests.bench.rig import Request, serving
from loadtests.timeline_draw import Run, Span, draw
from worker.engines.base import Bounds
from worker.engines.emulated import EmulatedEngine
from worker.tuning import Mode

MODES = tuple(mode.value for mode in Mode)
ALPHA = 0.3
MODEL = "emulated"


class Recording:
    """`worker.ports.Recorder` that keeps all. A name may hold several images, joined by commas."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def __call__(self, lane: str, name: str, began_s: float, ended_s: float) -> None:
        self.spans.append(Span(lane=lane, names=tuple(name.split(",")), began_s=began_s, ended_s=ended_s))


def main(argv: Sequence[str] | None = None) -> int:
    """Run, draw, say where the pictures are."""
    chosen = options(argv)
    chosen.out.mkdir(parents=True, exist_ok=True)
    modes = MODES if chosen.mode == "all" else (chosen.mode,)
    runs = [asyncio.run(run(mode, chosen)) for mode in modes]
    for each in runs:
        print(each.title)
    caption = (
        f"{chosen.images} images of {chosen.steps} steps on the emulated GPU, {chosen.batch_ms:g} ms per batch of "
        f"{chosen.batch}, store {chosen.store_ms:g} ms, queue calls {chosen.queue_ms:g} ms. "
        "A colour is an image; those that began together share a hue; a white line ends a step. Red: the GPU waits."
    )
    for path in draw(runs, caption, chosen.out, f"timeline-{chosen.mode}"):
        print(path)
    return 0


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.timeline", description=__doc__)
    parser.add_argument("--mode", choices=(*MODES, "all"), default="all")
    parser.add_argument("--out", type=Path, default=Path("var/timeline"), help="folder for the pictures")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--batch", type=int, default=4, help="the engine's largest batch")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-ms", type=float, default=400.0, help="a full batch from its first step to its last")
    parser.add_argument("--store-ms", type=float, default=200.0, help="latency of the store")
    parser.add_argument("--queue-ms", type=float, default=10.0, help="latency of each call to a queue")
    parser.add_argument("--px", type=int, default=256, help="side of the pictures")
    return parser.parse_args(argv)


async def run(mode: str, chosen: argparse.Namespace) -> Run:
    """One run, and what was recorded of it."""
    step_s = chosen.batch_ms / 1000 / chosen.steps / (1 - ALPHA + ALPHA * chosen.batch)
    engine = EmulatedEngine(
        model=MODEL, step_s=step_s, alpha=ALPHA, max_batch=chosen.batch, bounds=Bounds.square(chosen.px)
    )
    recording = Recording()
    async with serving(
        engine,
        mode=Mode(mode),
        latency_s=chosen.store_ms / 1000,
        call_s=chosen.queue_ms / 1000,
        recorder=recording,
    ) as rig:
        rig.feed(Request(model=MODEL, side_px=chosen.px, steps=chosen.steps), range(chosen.images))
        await rig.done(deadline_s=600)
    rig.verify()
    return Run(title=_title(mode, rig.engine), spans=recording.spans)


def _title(mode: str, engine: TimedEngine) -> str:
    return (
        f"{mode}: {engine.images} images in {engine.seconds:.2f} s, {engine.images_per_s:.2f} images/s, "
        f"GPU busy {100 - engine.idle_pct:.1f} % from the first admission to the last finish"
    )


if __name__ == "__main__":
    sys.exit(main())
