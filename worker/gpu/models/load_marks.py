"""Remembers, across restarts, which model a worker was loading when its process ended: hung, crashed, or killed for
memory.

A mark is a file in the data folder, locked while the load lasts. The kernel releases the lock however the process
ends, so an unlocked file is the mark of a process that ended during a load. Its model is tried again after a pause, so
that the other models are loaded first. If the disk cannot be written, only the marks are lost.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog

_log = structlog.get_logger()
_MOST_FILES: Final = 256
_MOST_BYTES: Final = 4_096


class LoadMarkFiles:
    """Fits `ports.LoadMarks`. `begin` and `end` are called on the GPU thread, everything else before and after. An exit
    without an error removes its own marks: a worker that is asked to stop in the middle of a load has not failed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, tuple[int, Path]] = {}
        self._deaths: dict[str, int] = {}

    def __enter__(self) -> Self:
        with self._harmless():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for _, model, deaths in self._left():
                self._deaths[model] = max(self._deaths.get(model, 0), deaths + 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for model in list(self._open):
            if kind is None:
                self._close(model, remove=True)

    def left(self) -> Mapping[str, int]:
        """Models during whose load the worker ended, and how often in a row."""
        return dict(self._deaths)

    def begin(self, model: str) -> None:
        """A load begins."""
        with self._harmless():
            name = f"{hashlib.sha256(model.encode()).hexdigest()[:16]}-{os.urandom(4).hex()}.json"
            path = self._folder / name
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._open[model] = (descriptor, path)
            os.write(descriptor, json.dumps({"model": model, "deaths": self._deaths.get(model, 0)}).encode())

    def end(self, model: str) -> None:
        """The load has ended, in success or failure: earlier processes' marks of the model are removed as well."""
        with self._harmless():
            self._deaths.pop(model, None)
            self._close(model, remove=True)
            for path, left, _ in list(self._left()):
                if left == model:
                    path.unlink(missing_ok=True)

    def _close(self, model: str, *, remove: bool) -> None:
        descriptor, path = self._open.pop(model, (-1, self._folder))
        if descriptor >= 0:
            with self._harmless():
                if remove:
                    path.unlink(missing_ok=True)
            os.close(descriptor)

    def _left(self) -> Iterator[tuple[Path, str, int]]:
        """Marks that are not locked: those of processes that have ended."""
        for path in sorted(self._folder.glob("*.json"))[:_MOST_FILES]:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    said = json.loads(os.read(descriptor, _MOST_BYTES))
                    yield path, str(said["model"]), int(said["deaths"])
                finally:
                    os.close(descriptor)

    @staticmethod
    @contextlib.contextmanager
    def _harmless() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _log.warning("load_marks.not_kept", reason=error.strerror or type(error).__name__)
