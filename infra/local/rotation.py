"""Keeps log files bounded while others hold them open for appending: copy, then truncate. No error leaves this."""

import shutil
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 20 * 1024**2
_BACKUPS = 2


class Rotated:
    """One log file with two older ones beside it, `.1` and `.2`."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes

    def rotate_if_large(self) -> bool:
        """Whether it was. On a full disk, where nothing can be copied, the oldest lines are the price of going on."""
        try:
            if self._path.stat().st_size < self._max_bytes:
                return False
        except OSError:
            return False
        older = [self._path.with_name(f"{self._path.name}.{number}") for number in range(1, _BACKUPS + 1)]
        try:
            for newer, oldest in zip(reversed(older[:-1]), reversed(older[1:]), strict=True):
                if newer.exists():
                    newer.replace(oldest)
            shutil.copyfile(self._path, older[0])
            older[0].chmod(0o600)
        except OSError:
            for each in older:
                with suppress(OSError):
                    each.unlink(missing_ok=True)
        with suppress(OSError), self._path.open("r+b") as file:
            file.truncate(0)
        return True
