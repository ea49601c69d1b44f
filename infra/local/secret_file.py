"""A secret in a file that its owner alone can read, made when it is first asked for and kept from then on."""

import fcntl
import os
import secrets
from pathlib import Path

from infra.lifecycle import ConfigError

_BYTES = 32


def read_or_make(path: Path) -> str:
    """The secret in the file. Of two processes that make it at once both get the same. Raises ConfigError."""
    try:
        if not path.exists():
            _make(path)
        found = path.read_text("ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise ConfigError(f"secret file {path}: {reason}; make it readable, or delete it to get a new one") from None
    if not found:
        raise ConfigError(f"secret file {path} is empty: delete it to get a new one")
    return found


def _make(path: Path) -> None:
    """Makes the secret under a file lock, which the kernel releases if this process dies, and by a rename.

    An atomic `link` would need no lock, but not every filesystem has hard links.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _write(path)
    finally:
        os.close(lock)


def _write(path: Path) -> None:
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")  # whole before it has its name
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(_BYTES) + "\n")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
