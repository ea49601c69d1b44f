"""`just bench worker`: what the worker makes of its GPU, beside the same engine driven with nothing around it.

The whole production worker runs over a queue and a store in memory (`rig.py`); all figures come from the GPU thread's
own clock, from the first admission to the last finish, and every picture is checked. Parts, chosen with `--only`:

- `emulated`: the emulated GPU, 400 ms per batch of 4, a store that takes 200 ms: the real loop (overlapped) beside the
  bare loop, and the two simpler loops (batched, plain).
- `seed`: the same with 4 s per batch.
- `memory`: 10,000 images in tiny steps: memory, depths of the queues, and what the worker's ledger cannot account for.
- `demo`: the demo model on one torch thread, alternating with stock diffusers in the same batches.

The last line printed is JSON.
"""

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence

import structlog

from loadtests.bench import floors, worker_demo, worker_emulated, worker_memory

Part = Callable[[argparse.Namespace], Mapping[str, object]]
PARTS: Mapping[str, Part] = {
    "memory": worker_memory.measure,
    "emulated": worker_emulated.measure,
    "seed": worker_emulated.measure_seed_case,
    "demo": worker_demo.measure,
}
FLOORS: floors.Floors = {
    "gpu_idle_pct": ("<=", 2.0),
    "ratio": (">=", 0.98),
    "demo_model.ratio": (">=", 0.93),
    "memory.unattributed_pct": ("<=", 0.5),
    "memory.rss_kb_per_1000_beyond_noise": ("<=", 0.0),
    "memory.blocks_per_1000_beyond_noise": ("<=", 0.0),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts. 1 when a floor was missed; raises rig.WrongResult when a picture was wrong."""
    options = _options(argv)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    result: dict[str, object] = {"bench": "worker"}
    for name, part in PARTS.items():
        if not options.only or name in options.only:
            result |= part(options)
    return floors.ended(result, missed(result))


def missed(result: Mapping[str, object]) -> list[str]:
    """Which of the floors that were measured were not met."""
    memory = result.get("memory")
    deep = memory["over_bound"] if isinstance(memory, dict) else []
    return floors.missed(result, FLOORS) + [f"{part} is deeper than its bound" for part in deep]


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench worker", description=__doc__)
    parser.add_argument("--only", choices=tuple(PARTS), action="append", help="this part (may be repeated)")
    parser.add_argument("--call-ms", type=float, default=0.0, help="what each call to a queue takes")
    parser.add_argument("--quick", action="store_true", help="a tenth of the images, and fewer rounds")
    parser.add_argument("--engine", help="demo: the kind of engine, instead of the models file's")
    parser.add_argument("--rounds", type=int, default=5, help="demo: alternations")
    parser.add_argument("--no-load", action="store_true", help="demo: no busy loop on the last core")
    return parser.parse_args(argv)
