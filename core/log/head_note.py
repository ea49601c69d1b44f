"""A note beside the log of how far it had got: what tells a lost or damaged tail from one that never was.

SQLite ends its write-ahead log, without a word, at the first frame that does not verify. After a crash that is right:
such a frame was never synced, so nobody was told of it. A flipped bit, a lost `-wal` file and an old copy put in the
log's place look just the same, and would silently take back what was acknowledged. So the log's head is noted here
after each commit and before anybody is told of it, and the next start compares. The note is not synced, which would
double the syncs of a commit: a killed process leaves it whole, a power cut leaves an older one at worst, and never one
that is newer than the log, because it is written after the commit's own sync.
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
    """What is noted; None when nothing is, or when the note itself is torn or damaged."""
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
        """Replaces the note, in one write of less than a sector. Raises LogBroken when the disk fails.

        A full disk is no reason to stop: an older note is still true, it only proves less.
        """
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._descriptor, _line(position, chain), 0)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise LogBroken(f"cannot note the log's head in {self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Ends the writing; the note stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _line(position: int, chain: bytes) -> bytes:
    text = f"{position:020d}:{chain.hex()}".encode("ascii")
    return text + b" " + blake2b(text, digest_size=8).hexdigest().encode("ascii") + b"\n"
