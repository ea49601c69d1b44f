"""Deletes objects that are no longer needed: temporary objects of published, superseded or abandoned pictures, and
public copies whose publication was not recorded.

Best effort, in memory: a temporary object that is not deleted expires with its bucket's lifecycle rule; a public copy
that is not deleted stays, but no link points to it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from infra.retry import Permanent, Retryable

_log = structlog.get_logger()
_AT_ONCE = 100


class CleanupStore(Protocol):
    """A bucket to delete from."""

    async def delete(self, keys: Sequence[str]) -> None: ...


class ObjectCleanup:
    """Deletes keys from one bucket in the background. A key beyond `limit` waiting ones is dropped, not deleted."""

    def __init__(self, bucket: CleanupStore, *, limit: int = 10_000) -> None:
        self._bucket = bucket
        self._keys: asyncio.Queue[str] = asyncio.Queue(limit)

    def add(self, key: str) -> None:
        """Delete this object soon, if there is room in the list."""
        if not self._keys.full():
            self._keys.put_nowait(key)

    async def run(self) -> None:
        """Delete what is added. Never returns. The keys of a failed call are dropped, not retried."""
        while True:
            keys = [await self._keys.get()]
            while not self._keys.empty() and len(keys) < _AT_ONCE:
                keys.append(self._keys.get_nowait())
            try:
                await self._bucket.delete(keys)
            except (Retryable, Permanent) as error:
                _log.info("leftovers.kept", count=len(keys), reason=str(error))
                await asyncio.sleep(1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanups:
    """One for each bucket."""

    temp: ObjectCleanup
    public: ObjectCleanup
