"""`just bench gpu`: a machine's GPU with a Stable Diffusion 1.5 of random weights at 512 px, and with the demo model.

Of each model: stock diffusers in batches of 1 to 16 (images a second, peak of memory); our engine's step by batch size
and its α; how much of a decoding, on a stream of its own, hides behind the others' steps; and the whole worker, from
message to upload, alternating with the bare loop at its best batch size: ratio, idle share of the GPU thread, peak.
Then the transports. Every image has a prompt of its own, the same on both sides.

The random model is made on the first run (no download, about 2 GB) and kept under `--folder`. Without a CUDA device
there is nothing to measure; `--tiny` walks through all of it on a CPU with a model of a megabyte, to test the script.
The last line printed is JSON.
"""

import argparse
import logging
import platform
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from infra.models import ModelEntry, load
from loadtests.bench import floors, transports
from loadtests.bench.worker_demo import MODELS
from worker.engines.devices import Device

if TYPE_CHECKING:
    from loadtests.bench.gpu_measure import Plan

PARTS = ("sd15", "demo", "transports")
BATCHES = (1, 2, 4, 8, 16)
SIDE_PX = 512
GUIDANCE_SCALE = 7.5
NO_GPU = "bench gpu: no CUDA device is visible here; --tiny walks through the script on a CPU and measures nothing."
Json = dict[str, object]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts. 1 when a floor was missed, 2 without a GPU."""
    options = _options(argv)
    import torch  # noqa: PLC0415  (heavy)

    if not (options.tiny or torch.cuda.is_available()):
        print(NO_GPU, file=sys.stderr)
        return 2
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with ExitStack() as stack:
        result = _result(options, stack)
    return floors.ended(result, [] if options.tiny else floors.missed(result, _floors()))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench gpu", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part (may be repeated)")
    parser.add_argument("--folder", type=Path, default=Path("var/bench/sd15-random"), help="of the random model")
    parser.add_argument("--steps", type=int, default=20, help="sd15: denoising steps of each image")
    parser.add_argument("--images", type=int, default=128, help="of each round of the whole worker")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=50, help="transports: pictures of each size over each")
    parser.add_argument("--tiny", action="store_true", help="a tiny model at 64 px on the CPU")
    return parser.parse_args(argv)


def _result(options: argparse.Namespace, stack: ExitStack) -> Json:
    from loadtests.bench.gpu_measure import Model, Plan  # noqa: PLC0415  (imports torch)

    plan = Plan(batches=(1, 2), images=4, rounds=1) if options.tiny else _plan(options)
    models: dict[str, Json] = {}
    for entry in _entries(options, stack, plan):
        models[entry.name] = Model(entry, plan).measure()
        print(f"{entry.name}: {models[entry.name]}", flush=True)
    result: Json = {"bench": "gpu", **_surroundings(tiny=options.tiny), "models": models}
    if _wanted(options, "transports"):
        result["transports"] = transports.measure(1 if options.tiny else options.runs)
    return result


def _plan(options: argparse.Namespace) -> "Plan":
    from loadtests.bench.gpu_measure import Plan  # noqa: PLC0415  (imports torch)

    return Plan(batches=BATCHES, images=options.images, rounds=options.rounds)


def _entries(options: argparse.Namespace, stack: ExitStack, plan: "Plan") -> list[ModelEntry]:
    """The models to measure, as the models file would name them."""
    if options.tiny:
        from worker.engines import tiny  # noqa: PLC0415  (imports torch)

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="darkroom-bench-")))
        return [_random("tiny-random", tiny.build(folder), px=64, steps=3, plan=plan, device="cpu", dtype="float32")]
    entries = []
    if _wanted(options, "sd15"):
        from loadtests.bench import gpu_model  # noqa: PLC0415  (imports torch)

        folder = gpu_model.sd15(options.folder)
        entries.append(
            _random("sd15-random", folder, px=SIDE_PX, steps=options.steps, plan=plan, device="cuda", dtype="float16")
        )
    if _wanted(options, "demo"):
        demo = load(MODELS)[0]
        entries.append(demo.model_copy(update={"engine": "latent", "device": "cuda", "max_batch": plan.batches[-1]}))
    return entries


def _random(name: str, folder: Path, *, px: int, steps: int, plan: "Plan", device: str, dtype: str) -> ModelEntry:
    return ModelEntry.model_validate(
        {
            "name": name,
            "engine": "latent",
            "source": str(folder),
            "width": px,
            "height": px,
            "num_inference_steps": steps,
            "guidance_scale": GUIDANCE_SCALE,
            "max_batch": plan.batches[-1],
            "device": device,
            "dtype": dtype,
        }
    )


def _wanted(options: argparse.Namespace, part: str) -> bool:
    return not options.only or part in options.only


def _surroundings(*, tiny: bool) -> Json:
    import torch  # noqa: PLC0415  (heavy)

    return {
        "device": Device.describe("cpu" if tiny else "cuda"),
        "libraries": Device.libraries(),
        "cuda": torch.version.cuda or "",
        "python": platform.python_version(),
        "tiny": tiny,
    }


def _floors() -> floors.Floors:
    return {f"transports.{field}": floor for field, floor in transports.FLOORS.items()}
