"""Deletes objects that nobody will ask for: drafts of attempts that lost, copies that came too late.

Best effort: what is not deleted here, the temporary bucket's expiry deletes, and nothing points to the rest.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from infra.retry import Permanent, Retryable

_log = structlog.get_logger()
_AT_ONCE = 100


class CleanupStore(Protocol):
    """Where the leftovers lie."""

    async def delete(self, keys: Sequence[str]) -> None: ...


class ObjectCleanup:
    """A bounded list of keys to delete; what does not fit is left to expire."""

    def __init__(self, bucket: CleanupStore, *, limit: int = 10_000) -> None:
        self._bucket = bucket
        self._keys: asyncio.Queue[str] = asyncio.Queue(limit)

    def add(self, key: str) -> None:
        """Delete this some time."""
        if not self._keys.full():
            self._keys.put_nowait(key)

    async def run(self) -> None:
        """Delete, for ever."""
        while True:
            keys = [await self._keys.get()]
            while not self._keys.empty() and len(keys) < _AT_ONCE:
                keys.append(self._keys.get_nowait())
            try:
                await self._bucket.delete(keys)
            except (Retryable, Permanent) as error:
                _log.info("leftovers.kept", count=len(keys), reason=str(error))
                await asyncio.sleep(1.0)
