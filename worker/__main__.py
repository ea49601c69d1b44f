"""`python -m worker` serves until SIGTERM. One process owns one GPU.

`python -m worker engine-server` serves one model to other processes instead; `python -m worker models check`
reports what each model of the models file is and whether it can be loaded.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from infra import lifecycle, settings, telemetry
from worker import threads
from worker.app import serve
from worker.config import WorkerSettings
from worker.engine_server import app as engine_server
from worker.model_check import app as model_check
from worker.tuning import Mode


def main(arguments: Sequence[str] | None = None) -> int:
    """The process. Returns the exit code: 1 after a hang or a lost device, so that the supervisor starts it again."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Renders images from the jobs queue.")
    parser.add_argument("--mode", choices=[mode.value for mode in Mode], help="instead of DARKROOM_WORKER_MODE")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve until SIGTERM (the default)")
    engine_server.add_arguments(
        commands.add_parser("engine-server", help="serve one model's engine to other processes")
    )
    model_check.add_arguments(commands.add_parser("models", help="look at the models file's models"))
    given = parser.parse_args(arguments)
    if given.command == "engine-server":
        return engine_server.main(given)
    try:
        config = settings.load(WorkerSettings)
        if given.command == "models":
            return model_check.run(given, config)
    except lifecycle.ConfigError as error:
        lifecycle.print_config_error(error)
        return lifecycle.EXIT_MISCONFIGURED
    if given.mode:
        config = config.model_copy(update={"worker_mode": given.mode})
    flush = telemetry.set_up("darkroom-worker", config)
    return end(lifecycle.run(lambda shutdown: serve(config, shutdown)), flush)


def end(code: int, flush: Callable[[], None]) -> int:
    """Returns the exit code once the worker's threads have ended. If one of them hangs, the process exits here."""
    if threads.left_behind():
        lifecycle.leave(code, flush)
    flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
