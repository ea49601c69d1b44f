"""`python -m loadtests.bench NAME [args]` runs `loadtests/bench/<name>.py`; its last line is JSON."""

import importlib
import sys
from collections.abc import Sequence

NAMES = ("batching", "calls", "gpu", "log", "submit", "transports", "worker")


def main(argv: Sequence[str]) -> int:
    """The benchmark's exit code; 2 for an unknown name."""
    if not argv or argv[0] not in NAMES:
        print(f"usage: python -m loadtests.bench {{{','.join(NAMES)}}} [options]", file=sys.stderr)
        return 2
    code: int = importlib.import_module(f"loadtests.bench.{argv[0]}").main(argv[1:])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
