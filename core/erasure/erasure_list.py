"""The list of erasures in its two places: a file in the data folder, and one empty object per id in the public bucket.

The file is quick to read and survives the loss of the log's folder; the objects survive the loss of the machine.
An erasure is noted in both before it is answered. The bucket is read only when the file may be incomplete: it is
missing, or a log from elsewhere was put in place. `app` builds it; fits `ports.ErasureList`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Final, Protocol, TypeVar

from core.log.erased_file import ErasedFile
from infra.retry import Retryable

T = TypeVar("T")

_PUTS_AT_ONCE: Final = 8
_EMPTY_SHA256: Final = sha256(b"").digest()


class ErasureBucket(Protocol):
    """The public bucket. Each raises Retryable or Permanent."""

    async def put(self, key: str, data: bytes, *, content_type: str, sha256: bytes) -> None: ...
    def keys(self, prefix: str) -> AsyncIterator[str]: ...


class Erasures:
    """`prefix` keeps the stacks on one bucket apart. `make` creates a missing bucket, where core may do that."""

    def __init__(
        self, file: ErasedFile, bucket: ErasureBucket, *, prefix: str, make: Callable[[], Awaitable[None]]
    ) -> None:
        self._file = file
        self._bucket = bucket
        self._prefix = prefix
        self._make = make
        self._lock = asyncio.Lock()
        self._puts = asyncio.Semaphore(_PUTS_AT_ONCE)

    async def note(self, generation_ids: Sequence[str]) -> None:
        """As `ports.ErasureList.note`. The bucket comes first, since it is more likely to fail than the disk."""
        # All puts are awaited before an error is raised, so that none goes on in the background.
        results = await asyncio.gather(*(self._put(each) for each in generation_ids), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        async with self._lock:
            await _disk(lambda: self._file.add(generation_ids))

    async def noted(self, *, fresh: bool) -> AsyncIterator[Sequence[str]]:
        """As `ports.ErasureList.noted`."""
        if not fresh and not await _disk(lambda: self._file.whole):
            await self._merge()
        await _disk(self._file.set_whole)
        pieces = self._file.pieces()
        while piece := await _disk(lambda: next(pieces, None)):
            yield piece

    async def _put(self, generation_id: str) -> None:
        async with self._puts:
            await self._bucket.put(
                self._prefix + generation_id, b"", content_type="application/octet-stream", sha256=_EMPTY_SHA256
            )

    async def _merge(self) -> None:
        await self._make()
        known = {each for piece in await _disk(lambda: list(self._file.pieces())) for each in piece}
        missing: list[str] = []
        async for key in self._bucket.keys(self._prefix):
            generation_id = key.removeprefix(self._prefix)
            if generation_id not in known:
                missing.append(generation_id)
        await _disk(lambda: self._file.add(missing))


async def _disk(call: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(call)
    except OSError as error:
        raise Retryable(f"the list of erasures on disk: {error.strerror or type(error).__name__}") from error


def prefix(jobs_queue: str) -> str:
    """Where the list is in the public bucket."""
    return f"_darkroom/{jobs_queue}/erased/"
