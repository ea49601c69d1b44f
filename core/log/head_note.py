"""A note of the log's head, in a file beside the log, by which the next start detects that the log has lost its end.

SQLite silently stops reading its write-ahead log at the first frame that does not verify. After a crash that is right:
such a frame was never synced, so its append never returned. But a flipped bit, a lost `-wal` file and an old copy in
the log's place look the same, and acknowledged events would silently disappear. So each append writes the head here
after its commit and before it returns, and the next start compares. The note is not synced, since that would double the
syncs of an append. A killed process leaves it complete. A power cut may leave an older note, which is still true, and
never one newer than the log, because it is written after the sync of the commit.
"""

import errno
import os
import re
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from core.errors import LogBroken

_FORM: Final = re.compile(rb"([0-9]{20}):([0-9a-f]{64}) ([0-9a-f]{16})\n")
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class Noted(NamedTuple):
    """A position that was acknowledged, and the chain's hash there."""

    position: int
    chain: bytes


def read(path: Path) -> Noted | None:
    """The note; None when there is none, or when it is torn or damaged."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    match = _FORM.fullmatch(text)
    if match is None or _line(int(match[1]), bytes.fromhex(match[2].decode())) != text:
        return None
    return Noted(int(match[1]), bytes.fromhex(match[2].decode()))


class HeadNote:
    """The note of a log that is open for writing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def write(self, position: int, chain: bytes) -> None:
        """Replace the note, by one write of less than a sector. Raises LogBroken when the disk fails.

        A full disk is ignored: an older note is still true, and only proves less.
        """
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._descriptor, _line(position, chain), 0)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise LogBroken(f"cannot note the log's head in {self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; the note stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _line(position: int, chain: bytes) -> bytes:
    text = f"{position:020d}:{chain.hex()}".encode("ascii")
    return text + b" " + blake2b(text, digest_size=8).hexdigest().encode("ascii") + b"\n"
