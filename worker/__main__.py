"""`python -m worker` serves until it is told to stop. One process owns one GPU."""

import argparse
import sys
from collections.abc import Sequence

from infra import lifecycle, settings, telemetry
from worker.app import serve
from worker.config import WorkerSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """The process. Returns the exit code: 1 after a hang or a lost device, so that the supervisor starts it again."""
    parser = argparse.ArgumentParser(prog="python -m worker", description="Renders images from the jobs queue.")
    parser.add_subparsers(dest="command").add_parser("serve", help="serve until SIGTERM (the default)")
    parser.parse_args(arguments)
    try:
        config = settings.load(WorkerSettings)
    except lifecycle.ConfigError as error:
        lifecycle.print_config_error(error)
        return lifecycle.EXIT_MISCONFIGURED
    flush = telemetry.set_up("darkroom-worker", config)
    try:
        return lifecycle.run(lambda shutdown: serve(config, shutdown))
    finally:
        flush()


if __name__ == "__main__":
    sys.exit(main())
