"""The storage faults in their long form; the last line is JSON.

`just storage-faults --every 1 --replays 10000 --seed 1`: every Nth write and sync of a real core meets each fault, and
the power is cut so many times. `--weak` runs the power cuts with PRAGMA synchronous = NORMAL, which must lose.
"""

import argparse
import json
import logging
import random
import sys
import tempfile
import time
from pathlib import Path

import structlog

from tests.storage import replays, sweep


def main() -> int:
    """0: nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.storage", description=__doc__)
    parser.add_argument("--every", type=int, default=10, help="take every Nth write; 0: no injected faults")
    parser.add_argument("--replays", type=int, default=200, help="power cuts; 0: none")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--weak", action="store_true", help="power cuts without a sync at each commit")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    begun = time.monotonic()
    result: dict[str, object] = {"every": options.every, "seed": options.seed, "synchronous_full": not options.weak}
    lost = 0
    with tempfile.TemporaryDirectory(prefix="darkroom-storage-") as name:
        folder = Path(name)
        if options.every:
            (folder / "sweep").mkdir()
            seen = sweep.run(folder / "sweep", every=options.every)
            sweep.births(folder / "sweep", options.every, seen)
            result |= {"faults": dict(seen.faults), "lives": seen.lives, "accepted": seen.accepted}
            result |= {"in_doubt": seen.in_doubt, "refused": seen.refused, "survived": seen.survived}
        if options.replays:
            (folder / "power").mkdir()
            run = replays.record(folder / "power", synced=not options.weak)
            shown = replays.replay(run, folder, times=options.replays, seed=options.seed)
            lost = len(shown.lost)
            for line in shown.lost[:10]:
                print(line)
            result |= {"replays": shown.count, "operations": len(run.ops), "replays_with_loss": lost}
    print(json.dumps(result | {"seconds": round(time.monotonic() - begun, 1)}))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
