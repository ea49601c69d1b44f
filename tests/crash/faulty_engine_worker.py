"""A worker like any other, whose model's engine server obeys prompts that order a fault.

Run as `python -m tests.crash.faulty_engine_worker [SERVER OPTIONS…]`; SERVER is the engine server's module, by default
faulty_engine_server. Everything but the engine behind the socket is production's.
"""

import sys
from contextlib import AsyncExitStack
from dataclasses import replace

from infra import settings, telemetry
from infra.admin import AdminServer
from infra.lifecycle import Shutdown, run
from worker.app import open_ports, tuning
from worker.assembly import Worker
from worker.config import WorkerSettings
from worker.engines.base import Bounds
from worker.engines.child_process.engine import UdsEngine
from worker.engines.emulated import EmulatedEngine


async def serve(config: WorkerSettings, shutdown: Shutdown) -> None:
    served = EmulatedEngine(model="quick", step_s=0.01, alpha=0.3, max_batch=8, bounds=Bounds.square(512))
    server = sys.argv[1:] or ["tests.crash.faulty_engine_server"]
    command = (sys.executable, "-m", *server, "--model", "quick")
    async with AsyncExitStack() as stack:
        ports = replace(await open_ports(config, stack), engines={"quick": UdsEngine(served, command)})
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
