"""Which processes belong to a stack, whatever became of its supervisor and its files.

Each process of a stack carries a mark on its command line (`-X darkroom_stack=…`, which Python ignores): a digest of
the data folder's path, and the program's name. On Linux a process of another container is told apart by its namespace.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_OPTION = "darkroom_stack"
_PROC = Path("/proc")
SUPERVISOR = "supervisord"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A living process of a stack."""

    name: str
    pid: int


def mark(data_dir: Path, name: str) -> str:
    """What follows `-X` on the command line of program `name`."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(data_dir))).hexdigest()[:16]
    return f"{_OPTION}={digest}/{name}"


def find(data_dir: Path) -> list[Marked]:
    """The living processes of the stack with this data folder, its supervisor included; zombies are not living."""
    wanted = mark(data_dir, "")
    return [
        Marked(name=name, pid=pid)
        for pid, arguments in _command_lines()
        if (name := _name(arguments, wanted)) and _is_ours(pid)
    ]


def is_alive(data_dir: Path, process: Marked) -> bool:
    """Whether the pid still belongs to that process: the kernel reuses pids."""
    return _name(_arguments(process.pid), mark(data_dir, "")) == process.name


def _name(arguments: Sequence[str], wanted: str) -> str:
    """The program's name; empty for a process without this mark in this place."""
    if len(arguments) < 3 or arguments[1] != "-X" or not arguments[2].startswith(wanted):
        return ""
    return arguments[2].removeprefix(wanted)


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    if (_PROC / "self" / "cmdline").exists():
        for entry in _PROC.iterdir():
            if entry.name.isdecimal():
                yield int(entry.name), _arguments(int(entry.name))
    else:
        for line in _ps("-axww", "-o", "pid=,command="):
            pid, *arguments = line.split()
            yield int(pid), arguments


def _arguments(pid: int) -> list[str]:
    if (_PROC / "self" / "cmdline").exists():
        try:
            return (_PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            return []
    return next(iter([line.split() for line in _ps("-ww", "-p", str(pid), "-o", "command=")]), [])


def _ps(*arguments: str) -> list[str]:
    ps = shutil.which("ps")
    if ps is None:
        return []
    done = subprocess.run([ps, *arguments], capture_output=True, text=True, errors="replace", check=False)
    return [line for line in done.stdout.splitlines() if line.strip()]


def _is_ours(pid: int) -> bool:
    """Whether the process is in our pid namespace: in a container the same path is another folder.

    A process that we may not inspect counts as foreign, since we could not stop it either.
    """
    if not (_PROC / "self" / "ns").exists():
        return True
    try:
        return (_PROC / str(pid) / "ns" / "pid").readlink() == (_PROC / "self" / "ns" / "pid").readlink()
    except OSError:
        return False
