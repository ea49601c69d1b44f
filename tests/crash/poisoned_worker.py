"""A worker like any other, but for one seed whose picture ends the process, as a segfault in a model would.

Run as `python -m tests.crash.poisoned_worker`. Everything but the engine is the production worker.
"""

import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import replace

from infra import settings, telemetry
from infra.admin import AdminServer
from infra.lifecycle import Shutdown, run
from tests.crash import POISONED_SEED
from worker.app import open_ports, tuning
from worker.assembly import Worker
from worker.config import WorkerSettings
from worker.engines.base import Bounds
from worker.engines.contract import Report, Stepped
from worker.engines.emulated import EmulatedEngine


class PoisonedEngine(EmulatedEngine):
    """Dies at the first step of a batch that holds the seed."""

    def step(self, report: Report) -> Stepped:
        if any(job.seed == POISONED_SEED for job, _ in self._members.values()):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(report)


async def serve(config: WorkerSettings, shutdown: Shutdown) -> None:
    engine = PoisonedEngine(model="quick", step_s=0.01, alpha=0.3, max_batch=8, bounds=Bounds.square(512))
    async with AsyncExitStack() as stack:
        ports = replace(await open_ports(config, stack), engines={"quick": engine})
        worker = Worker(ports, tuning(config))
        admin = AdminServer("127.0.0.1", config.worker_admin_port, worker.metrics.registry, worker.health.reasons)
        await stack.enter_async_context(admin)
        await worker.run(shutdown.wait)


def main() -> int:
    config = settings.load(WorkerSettings)
    flush = telemetry.set_up("darkroom-worker", config)
    try:
        return run(lambda shutdown: serve(config, shutdown))
    finally:
        flush()


if __name__ == "__main__":
    sys.exit(main())
