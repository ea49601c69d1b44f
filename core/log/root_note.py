"""The note of the log in the data folder, outside the log's own folder: which log belongs here, and its head.

It lets a start tell a missing, empty or unmounted folder from a first start, and the right log from an older copy or
another stack's log. Like `head_note`, each append overwrites it without a sync; it is synced when the provenance
changes. Where the data folder cannot be written, the log works without it.
"""

import os
import re
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

import structlog

from core.domain.provenance import LogNote, Provenance
from core.log.files import sync_folder

_log = structlog.get_logger()
NAME: Final = "core-log.note"
_FORM: Final = re.compile(rb"([0-9]{20}):([0-9a-f]{64}) (log_[0-9a-f]{16}) ([0-9]{10}) ([0-9a-f]{16})\n")


def read(path: Path) -> LogNote | None:
    """The note; None when there is none, or when it is torn or damaged. A damaged one stays in place."""
    try:
        text = path.read_bytes()
    except OSError:
        return None
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    position, chain, log_id, epoch = (part.decode("ascii") for part in match.groups()[:4])
    of = Provenance(log_id=log_id, epoch=int(epoch))
    note = LogNote(of=of, position=int(position), chain=bytes.fromhex(chain))
    return note if _line(note) == text else None


class RootNote:
    """The note of a log that is open for writing. `path` None: the log has no data folder, and nothing is written."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._of: Provenance | None = None

    def begin(self, note: LogNote) -> None:
        """Write the note durably, in place of any other. Logs a warning when the folder cannot be written."""
        if self._path is None:
            return
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            line = _line(note)
            os.pwrite(self._descriptor, line, 0)
            os.ftruncate(self._descriptor, len(line))
            os.fsync(self._descriptor)
            sync_folder(self._path.parent)
        except OSError as error:
            self._unwritable(error)
        else:
            self._of = note.of

    def write(self, position: int, chain: bytes) -> None:
        """Replace the position, in one write of less than a sector."""
        if self._descriptor is None or self._of is None:
            return
        try:
            os.pwrite(self._descriptor, _line(LogNote(of=self._of, position=position, chain=chain)), 0)
        except OSError as error:
            self._unwritable(error)

    def close(self) -> None:
        """Close the file; the note stays."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _unwritable(self, error: OSError) -> None:
        """Log a warning and go on without the note: an older one is still true, and only proves less."""
        if self._of is not None or self._descriptor is None:
            _log.warning("log.root_note_unwritable", path=str(self._path), reason=error.strerror)
        self._of = None


def _line(note: LogNote) -> bytes:
    text = f"{note.position:020d}:{note.chain.hex()} {note.of.log_id} {note.of.epoch:010d}".encode("ascii")
    return text + b" " + blake2b(text, digest_size=8).hexdigest().encode("ascii") + b"\n"
