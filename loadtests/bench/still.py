"""An engine that renders nothing: each picture is finished at the first step, and is always the same one of its size.

For `bench transports`. `python -m loadtests.bench.still FOLDER --uds PATH --parent PID`, or `--http PORT`, serves it
with the production engine server.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from worker.engine_server import over_http, over_uds
from worker.engine_server.images_api import Defaults
from worker.engines.base import Bounds
from worker.engines.contract import Done, Picture, Progress, RenderJob, Report, Stepped
from worker.engines.emulated import EmulatedEngine

MAX_SIDE = 2048


class StillEngine(EmulatedEngine):
    """`folder` holds SIDE.rgb for each size."""

    def __init__(self, folder: Path) -> None:
        super().__init__(model="still", step_s=0.0, alpha=0.0, max_batch=8, bounds=Bounds.square(MAX_SIDE))
        self._pixels = {int(path.stem): path.read_bytes() for path in folder.glob("*.rgb")}

    def step(self, report: Report) -> Stepped:
        jobs: Sequence[RenderJob] = [job for job, _ in self._members.values()]
        self._members.clear()
        report(Progress(steps={job.id: 1 for job in jobs}))
        return Stepped(finished=[Done(job_id=job.id, result=job) for job in jobs])

    def decode(self, done: Done) -> Picture:
        job = done.result
        assert isinstance(job, RenderJob)
        return Picture(width=job.width, height=job.height, rgb=self._pixels[job.width])


async def _for_ever() -> None:
    await asyncio.Event().wait()  # until it is killed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--uds", type=Path)
    parser.add_argument("--http", type=int, default=0)
    parser.add_argument("--parent", type=int, default=0)
    given = parser.parse_args()
    engine = StillEngine(given.folder)
    if given.uds:
        return over_uds.serve(engine, given.uds, parent=given.parent)
    defaults = Defaults(model="still", width=256, height=256, num_inference_steps=1, guidance_scale=0.0)
    server = over_http.Server(engine, defaults, over_http.Limits(), now_s=time.time)
    asyncio.run(server.serve("127.0.0.1", given.http, _for_ever))
    return 0


if __name__ == "__main__":
    sys.exit(main())
