"""Run many schedules: `python -m tests.simulation --schedules N --seed S`. The last line is JSON.

A failing schedule is made smaller and told as a readable trace on stderr; `--replay SEED` tells any one.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Generator
from contextlib import closing

from tests.simulation.coverage import Tally
from tests.simulation.schedule import Outcome, silence, simulate
from tests.simulation.shrink import shrink

_TOLD = 3
_LAST_LINES = 400


def main() -> int:
    """0: every invariant held in every schedule."""
    options = _options()
    if options.replay:
        with silence():
            outcome = simulate(options.replay, traced=True)
        _tell(outcome, len(outcome.lines))
        return 0 if outcome.good else 1
    begun = time.perf_counter()
    tally = Tally()
    with closing(_outcomes(options)) as outcomes:
        for outcome in outcomes:
            tally.add(outcome)
            if not outcome.good and len(tally.bad) <= _TOLD:
                with silence():
                    smaller = shrink(outcome, simulate)
                    _tell(simulate(smaller.seed, smaller.plan, traced=True), _LAST_LINES)
            if options.seconds and time.perf_counter() - begun > options.seconds:
                break
    print(json.dumps(_summary(tally, options, time.perf_counter() - begun)))
    return 1 if tally.bad else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="the schedules are SEED-0, SEED-1, …")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after this long; 0: never")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--replay", default="", help="one schedule, such as 1-17, with its trace")
    return parser.parse_args()


def _outcomes(options: argparse.Namespace) -> Generator[Outcome, None, None]:
    seeds = (f"{options.seed}-{number}" for number in range(options.schedules))
    if options.jobs == 1:
        yield from map(_one, seeds)
        return
    with multiprocessing.Pool(options.jobs) as pool:
        yield from pool.imap_unordered(_one, seeds, chunksize=4)


def _one(seed: str) -> Outcome:
    with silence():
        return simulate(seed)


def _summary(tally: Tally, options: argparse.Namespace, took_s: float) -> dict[str, object]:
    return {
        "schedules": tally.schedules,
        "lost": tally.lost,
        "stuck": tally.stuck,
        "double": tally.double,
        "wrong": tally.wrong,
        "failing": [outcome.seed for outcome in tally.bad],
        "accepted": tally.accepted,
        "failed": tally.failed,
        "events": tally.events,
        "seed": options.seed,
        "per_s": round(tally.schedules / took_s, 2),
        "faults": dict(sorted(tally.faults.items())),
        "transitions": dict(sorted(tally.transitions.items())),
        "uncovered": tally.uncovered(),
    }


def _tell(outcome: Outcome, lines: int) -> None:
    """A schedule for people."""
    print(f"--- schedule {outcome.seed}", file=sys.stderr)
    for fault in outcome.plan:
        print(f"    {fault}", file=sys.stderr)
    for line in outcome.lines[-lines:]:
        print(line, file=sys.stderr)
    for text in (*outcome.violations, *outcome.stuck):
        print(f"!!! {text}", file=sys.stderr)
    print(f"--- replay it with: python -m tests.simulation --replay {outcome.seed}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
