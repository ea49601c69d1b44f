"""A simulated object store: two buckets, and objects that may vanish or change."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from hashlib import sha256 as sha256_of

from infra.retry import Permanent
from infra.s3 import StoredObject
from tests.simulation.net import Net


@dataclass(slots=True)
class _Object:
    data: bytes
    stored: StoredObject


class SimBucket:
    """With `temp` it is the public bucket; without, the temporary one."""

    def __init__(self, name: str, net: Net, temp: "SimBucket | None" = None) -> None:
        self.name = name
        self.objects: dict[str, _Object] = {}
        self._net = net
        self._temp = temp

    async def put(self, key: str, data: bytes, *, content_type: str, sha256: bytes) -> None:
        """Verified against the digest."""

        def act() -> None:
            if sha256_of(data).digest() != sha256:
                raise Permanent("put: BadDigest")
            stored = StoredObject(key=key, size_bytes=len(data), sha256=sha256, content_type=content_type)
            self.objects[key] = _Object(data, stored)

        await self._net.call(self.name, "put", act)

    async def head(self, key: str) -> StoredObject | None:
        """None: no such object."""
        return await self._net.call(self.name, "head", lambda: self.stored(key))

    async def get(self, key: str) -> bytes | None:
        """None: no such object."""
        return await self._net.call(self.name, "get", lambda: self.data(key))

    async def delete(self, keys: Sequence[str]) -> None:
        """Those that exist."""

        def act() -> None:
            for key in keys:
                self.objects.pop(key, None)

        await self._net.call(self.name, "delete", act)

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        """Those that begin so."""
        found = await self._net.call(self.name, "list", lambda: sorted(k for k in self.objects if k.startswith(prefix)))
        for key in found:
            yield key

    async def copy_from_temp(self, temp_key: str, key: str, *, content_type: str) -> bool:
        """False: no such draft."""
        temp = self._temp
        assert temp is not None

        def act() -> bool:
            source = temp.objects.get(temp_key)
            if source is None:
                return False
            stored = source.stored
            copy = StoredObject(key=key, size_bytes=len(source.data), sha256=stored.sha256, content_type=content_type)
            self.objects[key] = _Object(source.data, copy)
            return True

        return await self._net.call(self.name, "copy", act)

    async def ensure(self) -> None:
        """It is there."""

    def stored(self, key: str) -> StoredObject | None:
        """What is there, seen from above."""
        return self.objects[key].stored if key in self.objects else None

    def data(self, key: str) -> bytes | None:
        """The bytes, seen from above."""
        return self.objects[key].data if key in self.objects else None

    def alter(self, key: str) -> None:
        """Other bytes under the same key, as another writer might leave them."""
        data = self.objects[key].data[:-1] + b"?"
        stored = StoredObject(key=key, size_bytes=len(data), sha256=sha256_of(data).digest(), content_type="image/png")
        self.objects[key] = _Object(data, stored)


class SimErasures:
    """The list of erasures, in the public bucket's place and weather; outlives every log."""

    def __init__(self, net: Net) -> None:
        self.ids: dict[str, None] = {}
        self._net = net

    async def note(self, generation_ids: Sequence[str]) -> None:
        """Durable when it returns."""
        await self._net.call("public", "note", lambda: self.ids.update(dict.fromkeys(generation_ids)))

    async def noted(self, *, fresh: bool) -> AsyncIterator[Sequence[str]]:
        """From the disk: no network is in between."""
        if not fresh and self.ids:
            yield list(self.ids)
