"""Queues at their worst: messages up to five times, shuffled, delayed, lost, purged; `python -m ... --images 100000`.

The last line is JSON.
"""

import argparse
import json
import sys
import time

from tests.simulation.coverage import Tally
from tests.simulation.faults import Fault
from tests.simulation.schedule import silence, simulate
from tests.simulation.world import QUEUES

PLAN = (
    *(Fault(0.0, kind, queue, 60.0, 0.9) for queue in QUEUES for kind in ("duplicate", "reorder", "delay")),
    *(Fault(0.0, "loss", queue, 60.0, 0.1) for queue in QUEUES),
    *(Fault(at_s, "purge", queue, 5.0, 0.5) for queue in QUEUES for at_s in (10.0, 25.0, 40.0)),
)


def flood(images: int, base: str) -> tuple[Tally, int]:
    """Schedules until so many images were published: what they met, and how many those were."""
    tally, published = Tally(), 0
    with silence():
        while published < images and not tally.bad:
            tally.add(simulate(f"{base}-{tally.schedules}", PLAN))
            published = tally.transitions["image.published rendered>published"]
    return tally, published


def main() -> int:
    """0: each image came out once."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.duplicates", description=__doc__)
    parser.add_argument("--images", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    asked, begun = parser.parse_args(), time.perf_counter()
    tally, published = flood(asked.images, str(asked.seed))
    told = {"published": published, "schedules": tally.schedules, "seed": asked.seed}
    told |= {"lost": tally.lost, "stuck": tally.stuck, "double": tally.double, "wrong": tally.wrong}
    told["failing"] = [outcome.seed for outcome in tally.bad]
    took_s = round(time.perf_counter() - begun, 1)
    print(json.dumps(told | {"faults": dict(sorted(tally.faults.items())), "took_s": took_s}))
    return 1 if tally.bad else 0


if __name__ == "__main__":
    sys.exit(main())
