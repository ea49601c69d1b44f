"""A stack's data folder: made, checked and written to. Every legal path works; others are reported in one line."""

import fcntl
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.lifecycle import ConfigError
from infra.local.layout import Stack

LONGEST_PATH_BYTES = 512 - len("/core/log.sqlite3-journal")
"""SQLite's files have names of at most 512 bytes."""


class Busy(Exception):
    """Another command is starting or stopping this stack."""


def shown(path: Path) -> str:
    """A path on one line of a terminal, whatever it holds."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def expanded(text: str) -> Path:
    """The path with `~` expanded. Raises ConfigError for an unknown home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{text}: {error}") from None


def prepare(stack: Stack) -> None:
    """Makes the folders. Raises ConfigError that says what is wrong with the data folder."""
    if len(os.fsencode(stack.data_dir)) > LONGEST_PATH_BYTES:
        raise ConfigError(
            f"DARKROOM_DATA_DIR: the path has {len(os.fsencode(stack.data_dir))} bytes, "
            f"and the event log can be opened with {LONGEST_PATH_BYTES} at most"
        )
    emulator = stack.data_dir / "emulator"
    with telling(stack):
        stack.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (stack.logs, stack.state_file.parent, emulator, emulator / "tmp"):
            folder.mkdir(mode=0o700, exist_ok=True)


@contextmanager
def telling(stack: Stack) -> Iterator[None]:
    """Turns an OSError raised in the block into a ConfigError about the data folder."""
    try:
        yield
    except OSError as error:
        where = shown(Path(error.filename)) if isinstance(error.filename, str) else shown(stack.data_dir)
        raise ConfigError(f"data folder {where}: {error.strerror}; set DARKROOM_DATA_DIR to another one") from None


@contextmanager
def locked(stack: Stack) -> Iterator[None]:
    """Lets one command at a time start or stop a stack. Raises Busy. Without a data folder it locks nothing."""
    try:
        lock = os.open(stack.state_file.with_name("lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Busy(f"another command is starting or stopping the stack in {shown(stack.data_dir)}") from None
    try:
        yield
    finally:
        os.close(lock)


def write_secret(path: Path, text: str) -> None:
    """Writes a file that its owner alone can read."""
    replace(path, text + "\n")


def replace(path: Path, text: str) -> None:
    """Replaces a file atomically: a full disk must not leave half a file for a later command to read."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_supervisor_file(stack: Stack, marks: dict[str, str], stop_wait_s: int) -> None:
    """Supervisord's file. It contains no path: its syntax cannot hold every path, and expands `%` twice."""
    lines = [
        "[supervisord]",
        "nodaemon=true",
        "silent=true",
        "logfile_maxbytes=0",  # kept bounded by infra.local.rotation: its own rotation ends it on a full disk
        "pidfile=local/supervisord.pid",
        "childlogdir=logs",
        "umask=077",  # its own default is 022
    ]
    for name, mark in marks.items():
        lines += ["", f"[program:{name}]", *_program(name, mark, stop_wait_s)]
    for priority, kind in enumerate(("emulator", "core", "worker", "gateway"), 1):
        members = ",".join(name for name in marks if name.partition("-")[0] == kind)
        lines += ["", f"[group:{kind}]", f"programs={members}", f"priority={priority}"]
    replace(stack.supervisor_file, "\n".join(lines) + "\n")


def _program(name: str, mark: str, stop_wait_s: int) -> Iterator[str]:
    launch = f'exec "$DARKROOM_LOCAL_PYTHON" -X {mark} -P -m infra.local.launch {name}'
    yield f"command=/bin/sh -c {shlex.quote(launch)}"
    yield "autorestart=true"
    yield "startsecs=1"
    # Without end: a full disk may last for days. The pause grows by a second each time: 85 s after an hour.
    yield "startretries=1000000"
    yield "stopsignal=TERM"
    yield f"stopwaitsecs={stop_wait_s}"
    yield "killasgroup=true"
    yield "redirect_stderr=true"
    yield "stdout_logfile=NONE"  # the programs write their logs themselves


def write_state(stack: Stack, state: dict[str, object]) -> None:
    """What `launch` and later commands need to know of the stack that is started."""
    replace(stack.state_file, json.dumps(state, indent=1) + "\n")


def read_state(stack: Stack) -> dict[str, object]:
    """What `write_state` wrote; empty if there is no readable state."""
    try:
        state = json.loads(stack.state_file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
