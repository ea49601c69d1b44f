"""The command line of the local stack."""

import argparse
import signal
import sys
from collections.abc import Callable

from infra.lifecycle import EXIT_CRASHED, EXIT_MISCONFIGURED, ConfigError, print_config_error
from infra.local import commands, http
from infra.local.folder import Busy
from infra.local.processes import StackError


def main() -> int:
    """Exit codes: 0, 1 when something did not work, 2 for a misconfiguration, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a path may hold any bytes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that `finally` runs
    arguments = _parser().parse_args()
    try:
        return _chosen(arguments)()
    except ConfigError as error:
        print_config_error(error)
        return EXIT_MISCONFIGURED
    except BrokenPipeError:
        sys.stdout = None
        return EXIT_CRASHED
    except (StackError, Busy, http.HttpError, OSError) as error:
        print("darkroom: " + " ".join(str(error).split()), file=sys.stderr)
        return EXIT_CRASHED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _chosen(arguments: argparse.Namespace) -> Callable[[], int]:
    match arguments.command:
        case "up":
            return commands.up
        case "down":
            return commands.down
        case "restart":
            return commands.restart
        case "reload":
            return commands.reload
        case "demo":
            from infra.local import demo  # noqa: PLC0415  (tqdm is for the demo alone)

            return lambda: demo.run(arguments.prompt)
        case "logs":
            from infra.local import logs  # noqa: PLC0415

            return lambda: logs.run(arguments.service, follow=arguments.follow, lines=arguments.lines)
        case "run":
            return lambda: commands.run(arguments.module, arguments.arguments)
        case _:
            return commands.status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.local", description="darkroom on this machine")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the stack and keep it running")
    commands.add_parser("down", help="stop it")
    commands.add_parser("restart", help="stop it and start it with the settings of now")
    commands.add_parser("reload", help="read models file and rules file again, one worker and gateway after the other")
    commands.add_parser("status", help="say what runs")
    logs = commands.add_parser("logs", help="follow the logs of all services, or of one")
    logs.add_argument("service", nargs="?", default="", help="such as core, worker or gateway")
    logs.add_argument("--no-follow", dest="follow", action="store_false", help="end after what is there")
    logs.add_argument("--lines", type=int, default=20, metavar="N", help="of what is there, the last N (default: 20)")
    demo = commands.add_parser("demo", help="prompt in, picture out, nothing left running")
    demo.add_argument("prompt")
    run = commands.add_parser("run", help="python -m core|gateway|worker in the stack's environment")
    run.add_argument("module", choices=("core", "gateway", "worker"))
    run.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
