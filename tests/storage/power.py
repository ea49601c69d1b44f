"""A disk that may lose whatever was not synced, and the worst it may hold after a power cut.

Synced is a file's content after a sync of the file, and a name after a sync of its folder. Of everything else any
part may be there: nothing, all, the first so many writes, any of them, any 512-byte sector of any of them.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.storage.recorded import Create, Op, Sync, Truncate, Unlink, Write

SECTOR = 512
MODES = ("nothing", "everything", "first", "some", "sectors")


@dataclass(slots=True, eq=False)
class _File:
    synced: bytearray = field(default_factory=bytearray)
    pending: list[Write | Truncate] = field(default_factory=list)


@dataclass(slots=True)
class Disk:
    """`apply` one operation after the other; `after_power_cut` at any point between."""

    files: dict[str, _File] = field(default_factory=dict)
    """As the process sees them."""
    names: dict[str, _File | None] = field(default_factory=dict)
    """Synced ones; None is a folder."""
    pending: list[tuple[str, _File | None, bool]] = field(default_factory=list)
    """Names made (True) and removed since."""

    def apply(self, op: Op) -> None:
        match op:
            case Write() | Truncate():
                self.files[op.path].pending.append(op)
            case Sync() if op.path in self.files:
                file = self.files[op.path]
                for each in file.pending:
                    _put(file.synced, each)
                file.pending.clear()
            case Sync():
                self._sync_names(op.path)
            case Create(folder=True):
                self.pending.append((op.path, None, True))
            case Create():
                if op.path not in self.files:
                    self.files[op.path] = _File()
                    self.pending.append((op.path, self.files[op.path], True))
                if op.truncate:
                    self.files[op.path].pending.append(Truncate(at=op.at, path=op.path, size=0))
            case Unlink():
                self.files.pop(op.path, None)
                self.pending.append((op.path, None, False))

    def _sync_names(self, folder: str) -> None:
        mine = [each for each in self.pending if _parent(each[0]) == folder]
        self.pending = [each for each in self.pending if _parent(each[0]) != folder]
        for name in mine:
            _name(self.names, name)

    def after_power_cut(self, root: Path, chance: random.Random) -> tuple[str, dict[str, bytes]]:
        """How much was kept, and the files by path relative to `root`."""
        mode = chance.choice(MODES)
        names = dict(self.names)
        for each in self.pending:
            if mode == "everything" or (mode != "nothing" and chance.random() < 0.5):
                _name(names, each)
        unsynced = sorted((op for file in self.files.values() for op in file.pending), key=lambda op: op.at)
        first = chance.randrange(len(unsynced) + 1)
        kept = {id(op) for op in unsynced[:first]} if mode == "first" else set()
        torn = unsynced[first] if mode == "first" and first < len(unsynced) else None
        image = {}
        for path, held in names.items():
            if held is None or not _reachable(path, names, str(root)) or path.endswith("-shm"):
                continue
            content = bytearray(held.synced)
            for op in held.pending:
                if mode == "everything" or id(op) in kept or (mode == "some" and chance.random() < 0.5):
                    _put(content, op)
                elif mode == "sectors" or op is torn:
                    _put_sectors(content, op, chance)
            image[str(PurePosixPath(path).relative_to(root))] = bytes(content)
        return mode, image


def _put(content: bytearray, op: Write | Truncate) -> None:
    if isinstance(op, Truncate):
        del content[op.size :]
        content.extend(bytes(op.size - len(content)))
        return
    end = op.offset + len(op.data)
    content.extend(bytes(max(0, end - len(content))))
    content[op.offset : end] = op.data


def _put_sectors(content: bytearray, op: Write | Truncate, chance: random.Random) -> None:
    if isinstance(op, Truncate):
        if chance.random() < 0.5:
            _put(content, op)
        return
    end = op.offset + len(op.data)
    at = op.offset
    while at < end:
        until = min(end, at - at % SECTOR + SECTOR)
        if chance.random() < 0.5:
            piece = op.data[at - op.offset : until - op.offset]
            _put(content, Write(at=op.at, path=op.path, offset=at, data=piece))
        at = until


def _name(names: dict[str, _File | None], entry: tuple[str, _File | None, bool]) -> None:
    path, file, made = entry
    if made:
        names[path] = file
    else:
        names.pop(path, None)


def _parent(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _reachable(path: str, names: dict[str, _File | None], root: str) -> bool:
    above = _parent(path)
    return above == root or (above in names and _reachable(above, names, root))


def write(image: dict[str, bytes], folder: Path) -> None:
    """Lays the image out in an empty folder."""
    for name, content in image.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def count_unsynced(ops: Sequence[Op]) -> int:
    """How many writes were never synced: what a model can lose."""
    disk = Disk()
    for op in ops:
        disk.apply(op)
    return sum(len(file.pending) for file in disk.files.values())
