"""What a process did to the files of one folder, in order, read from a recording by strace."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CALLS = "openat,pwrite64,write,ftruncate,fdatasync,fsync,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat"
OPTIONS = ("-ff", "-y", "-ttt", "-xx", "-s", "1000000", "-e", f"trace={CALLS}", "-e", "status=successful")
"""One file for each thread, so that no line is broken in two; paths and data in hexadecimal, and whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    at: float
    path: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate:
    at: float
    path: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """Of a file's content, or of a folder's names."""

    at: float
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """A file or folder, unless it is there."""

    at: float
    path: str
    folder: bool = False
    truncate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlink:
    at: float
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    """Not modelled: core renames nothing while it serves. Python does elsewhere, as it compiles modules."""

    at: float
    path: str


Op = Write | Truncate | Sync | Create | Unlink | Rename

_LINE = re.compile(r"^(\d+\.\d+) (\w+)\((.*)\) = (\d+)")
_FILE = re.compile(r"^\d+<([^>]*)>")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


def read(output: Path, folder: Path) -> list[Op]:
    """All operations on what lies in `folder`, on the folder itself, and on its name."""
    found: list[Op] = []
    for trace in sorted(output.parent.glob(output.name + ".*")):
        position: dict[str, int] = {}
        for line in trace.read_text("ascii", "replace").splitlines():
            match = _LINE.match(line)
            if match:
                found.extend(_op(float(match[1]), match[2], match[3], int(match[4]), position))
    root = str(folder)
    mine = [op for op in found if op.path in {root, str(folder.parent)} or op.path.startswith(root + "/")]
    assert not [op for op in mine if isinstance(op, Rename)], "teach the model renaming first"
    return sorted(mine, key=lambda op: op.at)


def _op(at: float, call: str, arguments: str, result: int, position: dict[str, int]) -> Iterator[Op]:
    texts = [match[1] for match in _TEXT.finditer(arguments)]
    file = _FILE.match(arguments)
    path = _plain(file[1]) if file else ""
    match call:
        case "pwrite64" | "write" if path.startswith("/"):
            data = _bytes(texts[0])[:result]
            offset = int(arguments.rsplit(", ", 1)[1]) if call == "pwrite64" else position.get(path, 0)
            position[path] = offset + result
            yield Write(at=at, path=path, offset=offset, data=data)
        case "ftruncate":
            yield Truncate(at=at, path=path, size=int(arguments.rsplit(", ", 1)[1]))
        case "fsync" | "fdatasync":
            yield Sync(at=at, path=path)
        case "openat" if "O_CREAT" in arguments:
            name = _plain(texts[-1])
            position[name] = 0
            yield Create(at=at, path=name, truncate="O_TRUNC" in arguments)
        case "mkdir" | "mkdirat":
            yield Create(at=at, path=_plain(texts[-1]), folder=True)
        case "unlink" | "unlinkat":
            yield Unlink(at=at, path=_plain(texts[-1]))
        case "rename" | "renameat" | "renameat2":
            yield from (Rename(at=at, path=_plain(text)) for text in texts)
        case _:
            pass


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _plain(text: str) -> str:
    return _bytes(text).decode() if "\\x" in text else text
