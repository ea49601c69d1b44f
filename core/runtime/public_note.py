"""`ports.PublicNotes` over a bucket: the object `_darkroom/{jobs queue}/log.json` beside the pictures.

The jobs queue's name keeps two stacks on one bucket apart.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from hashlib import sha256
from itertools import count
from typing import Final, Protocol, cast

PREFIX: Final = "_darkroom/"
_NAME: Final = "/log.json"
_PICTURE: Final = re.compile(r"[0-9a-f]{32,}/[0-9a-f]{64}\.[a-z0-9]+")
_FIRST_DIGITS: Final = "0123456789abcdef"
_LOOKED_AT: Final = 1_000
"""Keys listed per first hex digit. Listing all 16 keeps other objects from hiding the pictures; the bound keeps the
check short.
"""


class NoteBucket(Protocol):
    """The methods of a bucket that are used here. Each raises Retryable or Permanent."""

    async def get(self, key: str) -> bytes | None: ...
    async def put(self, key: str, data: bytes, *, content_type: str, sha256: bytes) -> None: ...
    def keys(self, prefix: str) -> AsyncIterator[str]: ...
    async def ensure(self) -> None: ...


class BucketNotes:
    """The note of the stack with this jobs queue. `make`: whether to create a missing bucket."""

    def __init__(self, bucket: NoteBucket, jobs_queue: str, *, make: bool) -> None:
        self._bucket = bucket
        self._key = f"{PREFIX}{jobs_queue}{_NAME}"
        self._make = make

    async def read(self) -> bytes | None:
        """As `ports.PublicNotes.read`."""
        if self._make:
            await self._bucket.ensure()
        return await self._bucket.get(self._key)

    async def write(self, note: bytes) -> None:
        """As `ports.PublicNotes.write`."""
        digest = sha256(note).digest()
        await self._bucket.put(self._key, note, content_type="application/json", sha256=digest)

    async def unexplained(self) -> bool:
        """As `ports.PublicNotes.unexplained`."""
        if await self._any(PREFIX, lambda key: key.endswith(_NAME)):
            return False
        for digit in _FIRST_DIGITS:
            if await self._any(digit, lambda key: _PICTURE.fullmatch(key) is not None):
                return True
        return False

    async def _any(self, prefix: str, wanted: Callable[[str], bool]) -> bool:
        # Every implementation is an async generator; `aclosing` closes it when the loop is left early.
        async with aclosing(cast("AsyncGenerator[str, None]", self._bucket.keys(prefix))) as keys:
            seen = count(1)
            async for key in keys:
                if wanted(key):
                    return True
                if next(seen) >= _LOOKED_AT:
                    break
        return False
