"""API keys: who is calling. A key is `dk_<id>_<secret>`; only its id and the SHA-256 of the secret are stored.

The secret has 160 random bits, too many to search for a digest; a slow hash would only slow down every request.
The keys file is one JSON document, replaced as a whole. A running gateway looks at it every second (`KeyRing.refresh`),
so a revoked key stops working within seconds.
"""

import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from gateway import errors
from gateway.private_file import PrivateFile

ANONYMOUS_TENANT = "local"
"""The tenant of every caller of a loopback gateway without any key."""
_KEY = re.compile(r"dk_([0-9a-z]{10})_([0-9A-Za-z]{20,64})")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ALPHANUMERIC = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NO_DIGEST = "0" * 64


class KeysFileError(Exception):
    """The keys file cannot be used; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key as it is stored. Times are Unix time; 0: not revoked."""

    id: str
    tenant: str
    secret_sha256: str
    created_at_ms: int
    revoked_at_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sent a request. `key_id` is empty for the anonymous tenant of a loopback gateway without keys.

    `until_s` is set for the bearer of a signed URL, who may fetch one image until then (Unix time).
    """

    tenant: str
    key_id: str
    until_s: int = 0


class KeyFile:
    """The stored keys: reads them, and changes them under a lock, atomically, readable by their owner only."""

    def __init__(self, path: Path) -> None:
        self._file = PrivateFile(path, KeysFileError)

    def stamp(self) -> tuple[int, int, int] | None:
        """Changes when the file does; None: there is no file. Raises KeysFileError."""
        return self._file.stamp()

    def read(self) -> tuple[KeyRecord, ...]:
        """All keys, revoked ones too. Raises KeysFileError."""
        try:
            document = self._file.read()
            return () if document is None else tuple(KeyRecord(**record) for record in document["keys"])
        except (ValueError, TypeError, KeyError):
            raise KeysFileError(f"{self._file.path}: is not a keys file") from None

    def create(self, tenant: str, *, now_ms: int) -> str:
        """A new key for `tenant`, stored hashed. Raises KeysFileError, ValueError for a name that cannot be one."""
        if not _TENANT.fullmatch(tenant):
            raise ValueError("a tenant is named with 1 to 64 letters, digits and _.- and begins with a letter or digit")
        key_id, secret = _drawn(_ID_ALPHABET, 10), _drawn(_ALPHANUMERIC, 27)
        record = KeyRecord(id=key_id, tenant=tenant, secret_sha256=_digest(secret), created_at_ms=now_ms)
        with self._file.locked():
            self._write((*self.read(), record))
        return f"dk_{key_id}_{secret}"

    def revoke(self, key_id: str, *, now_ms: int) -> bool:
        """Revokes a key by its id, with or without `dk_`. False: no such key, or revoked before."""
        wanted = key_id.removeprefix("dk_").partition("_")[0]
        with self._file.locked():
            before = self.read()
            after = tuple(_revoked(each, now_ms) if each.id == wanted else each for each in before)
            if after != before:
                self._write(after)
            return after != before

    def _write(self, records: Sequence[KeyRecord]) -> None:
        self._file.write({"version": 1, "keys": [asdict(record) for record in records]})


class KeyRing:
    """The keys in memory. `anonymous_allowed`: if the file has never held a key, every caller is `local`.

    `on_change` is called with the number of valid keys after each load.
    """

    def __init__(self, file: KeyFile, *, anonymous_allowed: bool, on_change: Callable[[int], None]) -> None:
        self._file = file
        self._anonymous_allowed = anonymous_allowed
        self._on_change = on_change
        self._stamp: tuple[int, int, int] | None = None
        self._keys: dict[str, tuple[str, Caller]] = {}
        self._known = 0
        self.problem = ""

    def load(self) -> None:
        """Reads the file. Raises KeysFileError."""
        stamp = self._file.stamp()  # before the content: a change in between is then seen at the next refresh
        records = self._file.read()
        valid = [record for record in records if not record.revoked_at_ms]
        self._keys = {each.id: (each.secret_sha256, Caller(tenant=each.tenant, key_id=each.id)) for each in valid}
        self._stamp, self._known = stamp, len(records)
        self._on_change(len(valid))

    def refresh(self) -> bool:
        """Reads the file if it has changed; returns whether it had. A missing or broken file only sets `problem`."""
        try:
            stamp = self._file.stamp()
            if stamp is None and self._known:
                self.problem = "the keys file is gone"
                return False
            changed = stamp != self._stamp
            if changed:
                self.load()
            self.problem = ""
            return changed
        except KeysFileError:
            self.problem = "the keys file cannot be read"
            return False

    @property
    def valid(self) -> int:
        """The number of valid keys."""
        return len(self._keys)

    @property
    def open_to_all(self) -> bool:
        """Whether no key is needed. Once the file has held a key, even one revoked since, a key is needed."""
        return self._anonymous_allowed and not self._known

    @property
    def usable(self) -> bool:
        """Whether any caller can be accepted."""
        return bool(self._keys) or self.open_to_all

    def caller(self, authorization: str | None) -> Caller:
        """The caller with this Authorization header. Raises Unauthorized."""
        if authorization is None:
            if self.open_to_all:
                return Caller(tenant=ANONYMOUS_TENANT, key_id="")
            raise errors.Unauthorized
        scheme, _, key = authorization.partition(" ")
        match = _KEY.fullmatch(key.strip()) if scheme.lower() == "bearer" else None
        if match is None:
            raise errors.Unauthorized
        # An unknown id is compared as well, so that the time taken does not reveal which ids exist.
        digest, caller = self._keys.get(match[1], (_NO_DIGEST, None))
        if not hmac.compare_digest(digest, _digest(match[2])) or caller is None:
            raise errors.Unauthorized
        return caller


def _revoked(record: KeyRecord, now_ms: int) -> KeyRecord:
    if record.revoked_at_ms:
        return record
    return KeyRecord(**{**asdict(record), "revoked_at_ms": now_ms})


def _digest(secret: str) -> str:
    return sha256(secret.encode("ascii")).hexdigest()


def _drawn(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))
