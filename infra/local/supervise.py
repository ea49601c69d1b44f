"""`python -m infra.local.supervise`: supervisord, in the data folder of the stack that it keeps alive.

It differs from `supervisord` in what a full disk does: supervisord ends when it can write neither its log nor its
standard error. Here both are lost instead. A thread keeps all logs bounded.
"""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from supervisor import supervisord

from infra.local.rotation import Rotated

_LOG = Path("logs", "supervisord.log")
_ROTATE_EVERY_S = 5.0


class _Tolerant:
    """A stream that takes no notice of a disk that is full or a reader that is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return False


def main() -> None:
    """Runs until SIGTERM has stopped everything."""
    sys.stdout, sys.stderr = _Tolerant(sys.stdout), _Tolerant(sys.stderr)
    stopped = threading.Event()
    threading.Thread(target=_keep_bounded, args=(stopped,), name="rotation", daemon=True).start()
    try:
        supervisord.main(["-n", "-c", str(Path("local", "supervisord.conf")), "-l", _log_file()])
    finally:
        stopped.set()


def _log_file() -> str:
    try:
        _LOG.open("ab").close()
    except OSError:
        return "/dev/null"
    return str(_LOG)


def _keep_bounded(stopped: threading.Event) -> None:
    while not stopped.wait(_ROTATE_EVERY_S):
        for path in _logs():
            Rotated(path).rotate_if_large()


def _logs() -> Iterator[Path]:
    try:
        yield from [*_LOG.parent.glob("*.log"), *_LOG.parent.glob("*.out")]
    except OSError:
        return


if __name__ == "__main__":
    main()
