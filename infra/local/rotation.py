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
        """Rotates a log of `max_bytes` or more; returns whether it did.

        If it cannot be copied, as on a full disk, all lines so far are dropped, older files included, so that the
        services can go on.
        """
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
        # Truncated in place: writers hold it open in append mode. Lines written since the copy are lost.
        with suppress(OSError), self._path.open("r+b") as file:
            file.truncate(0)
        return True
