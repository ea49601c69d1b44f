"""A small file of secrets that several processes share: read by its stamp, replaced as a whole, changed under a lock.

API keys and the secrets behind signed URLs are kept this way. File and folder are their owner's alone.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class PrivateFile:
    """One JSON document. Every method raises `error`, whose text names the file and the cause."""

    def __init__(self, path: Path, error: type[Exception]) -> None:
        self.path = path
        self._error = error

    def stamp(self) -> tuple[int, int, int] | None:
        """Changes when the file does; None: there is no file."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def read(self) -> Any:
        """The document, None where there is no file. Raises ValueError for a file that is no JSON."""
        try:
            return json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from None

    def write(self, document: object) -> None:
        """Replaces the file; durable when this returns. Hold `locked`."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self._failed(error) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One changer at a time. The lock is on a file beside this one, which is itself replaced."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._failed(error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _failed(self, error: OSError) -> Exception:
        return self._error(f"{self.path}: {error.strerror}")


def own_folder(path: Path) -> None:
    """Makes the folder, or takes a folder of ours from an earlier release, readable by its owner only.

    Raises OSError.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
