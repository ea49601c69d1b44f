"""Whether the files of a model have changed. Fits `ports.ModelFiles`; looks on a thread, for a network file system may
take long to answer.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Final

from worker.ports import Threads

_MOST_FILES: Final = 4_096


class ModelFilesOnDisk:
    """`sources`: each model's folders and files; none for a remote model. `problems`: for each model a check of its
    source, which returns what is wrong with it.
    """

    def __init__(
        self,
        sources: Mapping[str, tuple[Path, ...]],
        thread: Threads,
        *,
        problems: Mapping[str, Callable[[], str]],
    ) -> None:
        self._sources = sources
        self._thread = thread
        self._problems = problems

    def problem(self, model: str) -> str:
        """What is plainly wrong before anything is loaded, such as a folder that is not there; empty for nothing."""
        return self._problems[model]() if model in self._problems else ""

    def stamp_at_load(self, model: str) -> str:
        """The same as `stamp`, on the calling thread."""
        return stamp_of(self._sources.get(model, ()))

    async def stamp(self, model: str) -> str:
        """Changes with names, sizes and times of the files; empty where there is nothing to look at."""
        sources = self._sources.get(model, ())
        return await self._thread.run(lambda: stamp_of(sources)) if sources else ""


def stamp_of(sources: tuple[Path, ...]) -> str:
    """See `ModelFilesOnDisk.stamp`. A source that is missing, or cannot be read, has a stamp too."""
    if not sources:
        return ""
    digest = blake2b(digest_size=12)
    for source in sources:
        for number, (name, size, changed_ns) in enumerate(_entries(source)):
            digest.update(f"{name}\0{size}\0{changed_ns}\n".encode(errors="surrogateescape"))
            if number >= _MOST_FILES:
                break
    return digest.hexdigest()


def _entries(source: Path) -> Iterator[tuple[str, int, int]]:
    try:
        about = source.stat()
    except OSError:
        return
    yield str(source), about.st_size * source.is_file(), about.st_mtime_ns
    for folder, folders, files in os.walk(source):
        folders.sort()
        for file in sorted(files):
            path = Path(folder) / file
            try:
                about = path.stat()
            except OSError:
                continue
            yield str(path), about.st_size, about.st_mtime_ns
