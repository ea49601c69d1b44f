"""The list of erasures on this machine: a file in the data folder, beside core's own folder and not in it.

One id per line, in the order of the erasures, and nothing else. It outlives the log's folder: `core restore` and each
start compare the log with it. A last line without a newline does not count: its erasure was never acknowledged, and a
truncated id may be the id of another generation. All calls block on the disk.
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
    """`{data}/erased.txt`. If `{data}/erased.whole` exists, the list has every id of the public bucket's list."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "erased.txt"
        self._whole = data_dir / "erased.whole"

    @property
    def whole(self) -> bool:
        """Whether the file has every id of the public bucket's list."""
        return self._whole.exists() and self.path.exists()

    def set_whole(self) -> None:
        """Note, durably, that the file has every id of the public bucket's list. Raises OSError."""
        self.add([])
        if not self._whole.exists():
            self._whole.write_text("The list of erasures beside this file was held against the public bucket's.\n")
            sync_folder(self._whole.parent)

    def doubt(self) -> None:
        """Withdraw `set_whole`, so that the next start reads the public bucket's list too. Raises OSError."""
        if self._whole.exists():
            self._whole.unlink()
            sync_folder(self._whole.parent)

    def add(self, ids: Collection[str]) -> None:
        """Append ids, and sync. Raises OSError."""
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
        """All ids in order, in batches; none where there is no file. Raises OSError."""
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
