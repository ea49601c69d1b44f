"""A small file of secrets that several processes share: reread when its stamp changes, replaced whole, under a lock.

API keys and the secrets behind signed URLs are kept this way. Only the owner can read the file and its folder.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class PrivateFile:
    """One JSON document. An OSError in a method becomes `error`, whose text names the file and the cause."""

    def __init__(self, path: Path, error: type[Exception]) -> None:
        self.path = path
        self._error = error

    def stamp(self) -> tuple[int, int, int] | None:
        """Modification time, inode and size, which change when the file is replaced; None if there is no file."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def read(self) -> Any:
        """The document; None if there is no file. Raises ValueError if the file is not JSON."""
        try:
            return json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from None

    def write(self, document: object) -> None:
        """Replaces the file atomically; durable when this returns. The caller holds `locked`."""
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
            self._sync_folder()  # or a power cut brings back what was replaced, such as a revoked key
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self._failed(error) from None

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the lock for changes; blocks the thread until it is free.

        It locks a second file, because `write` replaces this one and a lock stays with the replaced inode.
        """
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
    """Creates the folder, readable by its owner only, or restricts one that an earlier release created.

    Raises OSError.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
