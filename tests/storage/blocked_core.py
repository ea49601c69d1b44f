"""`python -m tests.storage.blocked_core`: core as it is; SIGUSR1 keeps its event loop busy for three seconds."""

import signal
import sys
import time

from core.__main__ import main

BLOCKED_S = 3.0


def block(*_: object) -> None:
    """Runs in the main thread, as every signal handler of Python: the loop turns no more until it returns."""
    end = time.monotonic() + BLOCKED_S
    while time.monotonic() < end:
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, block)
    sys.exit(main(["serve"]))
