"""The list of erasures on this machine: a file in the data folder, beside core's own and not in it.

One id a line, in the order of the erasures, and nothing else. It outlives the log's folder; `core restore` holds a
backup against it, and so does every start. A last line without an end was answered to nobody: it may be the beginning
of an id only, which could be somebody else's, so it does not count. Calls block.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from core.log.files import make_folder, sync_folder

IDS_PER_PIECE: Final = 500
_LONGEST_LINE: Final = 4_096


class ErasedFile:
    """`{data}/erased.txt`. `{data}/erased.whole` beside it says that it misses nothing which the bucket has."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "erased.txt"
        self._whole = data_dir / "erased.whole"

    @property
    def whole(self) -> bool:
        """Whether the file is all there is to know."""
        return self._whole.exists() and self.path.exists()

    def set_whole(self) -> None:
        """From now on it is, durably."""
        self.add([])
        if not self._whole.exists():
            self._whole.write_text("The list of erasures beside this file was held against the public bucket's.\n")
            sync_folder(self._whole.parent)

    def doubt(self) -> None:
        """A log from elsewhere has come: the next start asks the public bucket what else was erased."""
        if self._whole.exists():
            self._whole.unlink()
            sync_folder(self._whole.parent)

    def add(self, ids: Collection[str]) -> None:
        """Appends them, and syncs. Raises OSError."""
        new = not self.path.exists()
        if new:
            make_folder(self.path.parent)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _cut_torn_line(descriptor)
            data = "".join(f"{each}\n" for each in ids).encode()
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync_folder(self.path.parent)

    def pieces(self) -> Iterator[Sequence[str]]:
        """All ids, in pieces; none where there is no file. Raises OSError."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            while lines := list(islice(file, IDS_PER_PIECE)):
                whole = (line for line in lines if line.endswith(b"\n"))
                yield list(filter(None, (line.decode("ascii", "replace").strip() for line in whole)))


def _cut_torn_line(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _LONGEST_LINE, max(0, size - _LONGEST_LINE))
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(descriptor, size - len(tail) + tail.rfind(b"\n") + 1)
