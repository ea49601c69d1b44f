"""`python -m tests.storage.late_core`: core as it is, once SIGUSR1 has come: time to watch it from its first write."""

import signal
import sys

from core.__main__ import main

WAITING = "core waits for SIGUSR1"

if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    print(WAITING, flush=True)
    signal.sigwait({signal.SIGUSR1})
    sys.exit(main(["serve"]))
