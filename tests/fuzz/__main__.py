"""Mutants of queue messages, many: `python -m tests.fuzz --mutants N --seed S`. The last line is JSON."""

import argparse
import json
import sys

from tests.fuzz.envelopes import run


def main() -> int:
    """0: nothing was accepted that must not be, and nothing raised that must not."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report = run(options.mutants, options.seed)
    for example in report.examples[:10]:
        print(example, file=sys.stderr)
    told = {name: getattr(report, name) for name in ("mutants", "resealed", "accepted", "changed")}
    told |= {"outside_domain": report.outside_domain, "stops": report.stops, "seed": options.seed}
    print(json.dumps(told | {"refusals": dict(report.refusals.most_common()), "per_s": report.per_s}))
    return 1 if report.outside_domain or report.stops else 0


if __name__ == "__main__":
    sys.exit(main())
