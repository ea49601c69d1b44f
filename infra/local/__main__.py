"""The command line of the local stack."""

import argparse
import os
import signal
import sys
from pathlib import Path

from infra.lifecycle import EXIT_CRASHED, EXIT_MISCONFIGURED, ConfigError, print_config_error
from infra.local import http, processes
from infra.local.layout import Stack
from infra.local.processes import StackError


def main() -> int:
    """Exit codes: 0, 1 when something did not work, 2 for a misconfiguration, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m infra.local", description="darkroom on this machine")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the stack and keep it running")
    commands.add_parser("down", help="stop it")
    commands.add_parser("status", help="say what runs")
    demo = commands.add_parser("demo", help="prompt in, picture out, nothing left running")
    demo.add_argument("prompt")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that `finally` runs
    try:
        match arguments.command:
            case "up":
                _up()
            case "down":
                _down()
            case "demo":
                from infra.local import demo as demonstration  # noqa: PLC0415  (tqdm is for the demo alone)

                demonstration.run(arguments.prompt)
            case _:
                return _status()
    except ConfigError as error:
        print_config_error(error)
        return EXIT_MISCONFIGURED
    except (StackError, http.HttpError, OSError) as error:
        print(f"darkroom: {error}", file=sys.stderr)
        return EXIT_CRASHED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _configured() -> Path:
    return Stack.from_env(os.environ).data_dir


def _up() -> None:
    found = processes.running(_configured())
    if found is not None:
        print(f"already up: {found.url}")
        return
    stack = Stack.from_env(os.environ)
    started = processes.start(stack)
    try:
        processes.wait_ready(started, stack.programs())
    except BaseException:
        processes.stop(stack, started)
        raise
    print(f"darkroom is up: {stack.url} (API described at {stack.url}/docs)")
    print(f"API key:        {stack.api_key_file}")
    print(f"logs:           {stack.logs}")


def _down() -> None:
    found = processes.running(_configured())
    if found is None or not processes.stop(found):
        print("nothing was running")
    else:
        print("stopped")


def _status() -> int:
    found = processes.running(_configured())
    if found is None:
        print("down")
        return EXIT_CRASHED
    print(f"up: {found.url}")
    for program in found.programs():
        if program.ready_url:
            ready = http.is_ready(program.ready_url)
            print(f"{program.name:12} {'ready' if ready else http.unready_reasons(program.ready_url)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
