"""An engine server like any other over the emulated engine, but for prompts that order a fault.

Run as `python -m tests.crash.faulty_engine_server --uds PATH --parent PID`, or `--http PORT`. Everything but the engine
is production's.
"""

import argparse
import os
import resource
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from worker.engine_server import over_http, over_uds
from worker.engine_server.app import serve_http
from worker.engine_server.images_api import Defaults
from worker.engines.base import Bounds
from worker.engines.contract import Capabilities, Done, Picture, Report, Stepped, StepTime
from worker.engines.emulated import EmulatedEngine
from worker.engines.errors import BadOutput, EngineLost, LoadFailed, OutOfMemory


class FaultyEngine(EmulatedEngine):
    """A member's prompt is its fault: segfault, hang, raise, memory, lost, bad, sticks (it cannot be forgotten); any
    other has none. With one called fits, five are said to fit into memory; with one called ahead, the device is.
    """

    def __init__(self, *, model: str = "m", whole_calls: bool = False, broken: str = "") -> None:
        super().__init__(model=model, step_s=0.002, alpha=0.3, max_batch=8, bounds=Bounds.square(512), sleep=time.sleep)
        self._broken = broken
        self._whole_calls = whole_calls
        if whole_calls:
            self.capabilities = Capabilities(max_batch=8)

    def load(self) -> None:
        if self._broken == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._broken == "hang":
            self._hang()
        if self._broken:
            raise LoadFailed("no such weights")
        super().load()

    def step(self, report: Report) -> Stepped:
        if not self._whole_calls:
            return self._step(report)
        stepped = self._step(report)
        while not (stepped.finished or stepped.evicted):
            stepped = self._step(report)
        return stepped

    def decode(self, done: Done) -> Picture:
        if getattr(done.result, "prompt", "") == "bad":
            raise BadOutput("numbers that are not finite")
        return super().decode(done)

    def reset(self) -> None:
        if any(job.prompt == "sticks" for job, _ in self._members.values()):
            raise ZeroDivisionError
        super().reset()

    def _step(self, report: Report) -> Stepped:
        for job, _ in self._members.values():
            match job.prompt:
                case "segfault":
                    os.kill(os.getpid(), signal.SIGSEGV)
                case "hang":
                    self._hang()
                case "raise":
                    raise ZeroDivisionError(f"a text that holds the prompt {job.prompt!r}")
                case "memory":
                    raise OutOfMemory("no room")
                case "lost":
                    raise EngineLost("an illegal memory access")
        prompts = {job.prompt for job, _ in self._members.values()}
        ahead, timed = "ahead" in prompts, StepTime(size=len(prompts), seconds=0.25)
        fits = 5 if "fits" in prompts else None
        return replace(super().step(report), fits=fits, ahead=ahead, timed=timed if ahead else None)

    @staticmethod
    def _hang() -> None:
        while True:
            time.sleep(60)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--uds", type=Path)
    parser.add_argument("--http", type=int, default=0)
    parser.add_argument("--hang-s", type=float, default=30.0)
    parser.add_argument("--parent", type=int, default=0)
    parser.add_argument("--model", default="m")
    parser.add_argument("--whole-calls", action="store_true")
    parser.add_argument("--broken", default="")
    parser.add_argument("--environment", type=Path, help="where the names of all variables are written")
    parser.add_argument("--starts", type=Path, help="a file that gets a line at each start")
    parser.add_argument("--broken-after", type=int, default=0, help="starts after which none succeeds any more")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if given.environment:
        given.environment.write_text("\n".join(os.environ))
    broken = given.broken
    if given.starts:
        with given.starts.open("a") as starts:
            starts.write("start\n")
        broken = "weights" if len(given.starts.read_text().splitlines()) > given.broken_after else ""
    engine = FaultyEngine(model=given.model, whole_calls=given.whole_calls, broken=broken)
    if given.uds:
        return over_uds.serve(engine, given.uds, parent=given.parent)
    defaults = Defaults(model=given.model, width=64, height=64, num_inference_steps=3, guidance_scale=1.0)
    limits = over_http.Limits(hang_s=given.hang_s)
    server = over_http.Server(engine, defaults, limits, now_s=time.time)
    return serve_http(server, "127.0.0.1", given.http, lambda: None)


if __name__ == "__main__":
    sys.exit(main())
