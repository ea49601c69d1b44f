"""`python -m core` serves. Of its commands, `init`, `verify`, `backup`, `restore`, `rebuild` and `history` work on the
log's files, `dead-letters` works on the dead-letter queue, and `erase` calls a running core.
"""

import gc
import sys
from collections.abc import Sequence

from core.app import dead_letters, operator, serve
from core.config import CoreSettings
from infra import lifecycle, settings, telemetry


def main(arguments: Sequence[str]) -> int:
    """Carry out one command, or serve when there is none. Returns the exit code."""
    if arguments and arguments[0] == "dead-letters":
        return _dead_letters(arguments[1:])
    if arguments and arguments[0] == "erase":
        return _erase(arguments[1:])
    if arguments and arguments[0] != "serve":
        from core.log.offline.cli import run  # noqa: PLC0415  (nothing that serving needs)

        return run(list(arguments))
    try:
        if len(arguments) > 1:
            raise lifecycle.ConfigError("python -m core serve takes no arguments: settings are environment variables")
        config = settings.load(CoreSettings)
    except lifecycle.ConfigError as error:
        lifecycle.print_config_error(error)
        return lifecycle.EXIT_MISCONFIGURED
    flush = telemetry.set_up("darkroom-core", config)
    gc.freeze()  # imported objects live as long as the process, so no collection has to traverse them
    try:
        return lifecycle.run(lambda shutdown: serve(config, shutdown))
    finally:
        flush()


def _dead_letters(arguments: Sequence[str]) -> int:
    from core.dispatch import dead_letters_cli  # noqa: PLC0415  (nothing that serving needs)

    try:
        config = settings.load(CoreSettings)
        return dead_letters_cli.run(arguments, lambda: dead_letters(config))
    except lifecycle.ConfigError as error:
        lifecycle.print_config_error(error)
        return lifecycle.EXIT_MISCONFIGURED


def _erase(arguments: Sequence[str]) -> int:
    from core.api import erase_cli  # noqa: PLC0415  (nothing that serving needs)

    try:
        config = settings.load(CoreSettings)
        return erase_cli.run(arguments, lambda: operator(config))
    except lifecycle.ConfigError as error:
        lifecycle.print_config_error(error)
        return lifecycle.EXIT_MISCONFIGURED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
