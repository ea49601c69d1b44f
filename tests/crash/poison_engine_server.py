"""An engine server like any other over the emulated engine, whose images are poison when their prompt says so.

A prompt is a fault and perhaps the step at which it strikes: "segfault", "hang at step 3". The faults are segfault,
hang, raise and memory in a step, nan in decoding, and "crowded 4": out of memory beside more than three others. "wait"
is none, and takes its time. A step takes as long for eight as for one, so that the worker likes large batches. Each
strike is noted in the file STRUCK as a line of JSON: the fault, the culprit's id, the ids of all that shared the step.
Run as `python -m tests.crash.poison_engine_server --uds PATH --parent PID --struck STRUCK`.
"""

import argparse
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from worker.engine_server import over_uds
from worker.engines.base import Bounds
from worker.engines.contract import Done, Picture, Report, Stepped
from worker.engines.emulated import EmulatedEngine
from worker.engines.errors import BadOutput, OutOfMemory

IN_A_STEP = ("segfault", "hang", "raise", "memory", "crowded")
WAIT_S = 0.2


class PoisonEngine(EmulatedEngine):
    """Images that stand aside do no harm."""

    def __init__(self, *, model: str, struck: Path) -> None:
        super().__init__(model=model, step_s=0.008, alpha=0.0, max_batch=8, bounds=Bounds.square(512))
        self._struck = struck

    def step(self, report: Report) -> Stepped:
        at_work = [member for job_id, member in self._members.items() if job_id not in self._parked]
        together = [job.id for job, _ in at_work]
        for job, done in at_work:
            fault, _, when = job.prompt.partition(" at step ")
            if fault == "nan" and done + 1 == job.num_inference_steps:
                self._note(fault, job.id, together)
            elif fault == "wait":
                time.sleep(WAIT_S)
            elif fault.startswith(IN_A_STEP) and done >= int(when or 0):
                self._strike(fault, job.id, together)
        return super().step(report)

    def decode(self, done: Done) -> Picture:
        if getattr(done.result, "prompt", "") == "nan":
            raise BadOutput("numbers that are not finite")
        return super().decode(done)

    def _strike(self, fault: str, job_id: str, together: Sequence[str]) -> None:
        kind, _, fits = fault.partition(" ")
        if fits and len(together) <= int(fits):
            return
        self._note(kind, job_id, together)
        match kind:
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang":
                while True:
                    time.sleep(60)
            case "raise":
                raise ZeroDivisionError(f"a text that holds the prompt {fault!r}")
            case _:
                raise OutOfMemory("no room")

    def _note(self, fault: str, job_id: str, together: Sequence[str]) -> None:
        with self._struck.open("a") as lines:
            lines.write(json.dumps({"fault": fault, "culprit": job_id, "together": together}) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--uds", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--struck", type=Path, required=True)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return over_uds.serve(PoisonEngine(model=given.model, struck=given.struck), given.uds, parent=given.parent)


if __name__ == "__main__":
    sys.exit(main())
