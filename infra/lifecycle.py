"""From process start to process exit: signals, two-stage stop, and uncaught errors.

Each service's `__main__` calls `run(main)`. The first SIGTERM or SIGINT sets `Shutdown.draining`, and the
service drains by its own deadline; the second one has its default effect: the kernel ends the process at once,
even if the event loop is stuck.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import NoReturn

import structlog

_log = structlog.get_logger()
EXIT_CRASHED = 1
EXIT_MISCONFIGURED = 2
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PRIVATE_UMASK = 0o077  # files of a service hold prompts and pictures: only their owner may read them


class ConfigError(Exception):
    """The settings or the environment are wrong. The text is one line that says what to do."""


class Shutdown:
    """Signals when to stop taking in work."""

    def __init__(self) -> None:
        self.draining = asyncio.Event()

    async def wait(self) -> None:
        """Returns once the first signal has come."""
        await self.draining.wait()

    def trigger(self) -> None:
        """What the first signal does; for tests and for services that end by themselves."""
        self.draining.set()


def run(main: Callable[[Shutdown], Awaitable[None]]) -> int:
    """Runs `main` to its end and returns the exit code: 0, 1 after an unexpected error, 2 after a ConfigError."""
    keep_private()
    try:
        asyncio.run(_with_signals(main))
    except Exception as error:  # noqa: BLE001  (the last resort of the process)
        wrong = next(_config_errors(error), None)
        if wrong is None:
            _log.critical("process.crashed", exc_info=error)
            return EXIT_CRASHED
        print_config_error(wrong)
        return EXIT_MISCONFIGURED
    finally:
        _let_stderr_go()
    return 0


def keep_private() -> None:
    """Makes files and folders of this process readable by their owner only."""
    os.umask(_PRIVATE_UMASK)


def leave(code: int, flush: Callable[[], None]) -> NoReturn:
    """Ends the process without finalizing the interpreter, for when a thread is still inside a model's library.

    While it finalizes, CPython ends such a thread when it next takes the GIL, by unwinding its C++ frames. They do not
    allow that: the process dies of SIGABRT ("terminate called without an active exception"), and `code` is lost.
    """
    with suppress(OSError):  # a full disk behind a stream is no reason to stay
        flush()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def print_config_error(error: ConfigError) -> None:
    """The one line on stderr that a misconfigured process leaves."""
    with suppress(OSError):  # on a full disk the exit code must do
        print("darkroom: " + " ".join(str(error).split()), file=sys.stderr, flush=True)  # noqa: T201
    _let_stderr_go()


def _let_stderr_go() -> None:
    """Points stderr at /dev/null if it cannot be flushed: a failing flush at exit would make the exit code 120."""
    try:
        sys.stderr.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


async def _with_signals(main: Callable[[Shutdown], Awaitable[None]]) -> None:
    shutdown = Shutdown()
    loop = asyncio.get_running_loop()

    def first(number: int) -> None:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        _log.info("process.draining", signal=signal.Signals(number).name)
        shutdown.trigger()

    for each in _SIGNALS:
        loop.add_signal_handler(each, first, each)
    await main(shutdown)


def _config_errors(error: BaseException) -> Iterator[ConfigError]:
    if isinstance(error, ConfigError):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _config_errors(inner)
