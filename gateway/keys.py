"""API keys: who is calling. A key is `dk_<id>_<secret>`; only its id and the SHA-256 of the secret are stored.

The secret has 160 random bits, so a plain digest cannot be searched; a slow hash would only slow every request.
The keys file is one JSON document, replaced as a whole. A running gateway looks at it every second (`KeyRing.refresh`),
so a revoked key stops working within seconds.
"""

import fcntl
import hmac
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from gateway import errors

ANONYMOUS_TENANT = "local"
"""Who everybody is on a loopback gateway without any key."""
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
    """Who sent a request. `key_id` is empty for the anonymous tenant of a loopback gateway without keys."""

    tenant: str
    key_id: str


class KeyFile:
    """The stored keys: reads them, and changes them under a lock, atomically, readable by their owner only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def stamp(self) -> tuple[int, int, int] | None:
        """Changes when the file does; None: there is no file. Raises KeysFileError."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeysFileError(f"{self._path}: {error.strerror}") from None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def read(self) -> tuple[KeyRecord, ...]:
        """All keys, revoked ones too. Raises KeysFileError."""
        try:
            document = json.loads(self._path.read_text("utf-8"))
            return tuple(KeyRecord(**record) for record in document["keys"])
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise KeysFileError(f"{self._path}: {error.strerror}") from None
        except (ValueError, TypeError, KeyError):
            raise KeysFileError(f"{self._path}: is not a keys file") from None

    def create(self, tenant: str, *, now_ms: int) -> str:
        """A new key for `tenant`, stored hashed. Raises KeysFileError, ValueError for a name that cannot be one."""
        if not _TENANT.fullmatch(tenant):
            raise ValueError("a tenant is named with 1 to 64 letters, digits and _.- and begins with a letter or digit")
        key_id, secret = _drawn(_ID_ALPHABET, 10), _drawn(_ALPHANUMERIC, 27)
        record = KeyRecord(id=key_id, tenant=tenant, secret_sha256=_digest(secret), created_at_ms=now_ms)
        with self._locked():
            self._write((*self.read(), record))
        return f"dk_{key_id}_{secret}"

    def revoke(self, key_id: str, *, now_ms: int) -> bool:
        """Ends a key, whose id may stand as `dk_<id>` too. False: no such key, or revoked before."""
        wanted = key_id.removeprefix("dk_").partition("_")[0]
        with self._locked():
            before = self.read()
            after = tuple(_revoked(each, now_ms) if each.id == wanted else each for each in before)
            if after != before:
                self._write(after)
            return after != before

    def _write(self, records: Sequence[KeyRecord]) -> None:
        document = {"version": 1, "keys": [asdict(record) for record in records]}
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise KeysFileError(f"{self._path}: {error.strerror}") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One changer at a time. The lock is on a file beside the keys file, which is itself replaced."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._path.with_name(f".{self._path.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError as error:
            raise KeysFileError(f"{self._path}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


class KeyRing:
    """The keys in memory. `anonymous_allowed`: with no key in the file at all, everybody is `local`."""

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
        stamp = self._file.stamp()
        records = self._file.read()
        valid = [record for record in records if not record.revoked_at_ms]
        self._keys = {each.id: (each.secret_sha256, Caller(tenant=each.tenant, key_id=each.id)) for each in valid}
        self._stamp, self._known = stamp, len(records)
        self._on_change(len(valid))

    def refresh(self) -> bool:
        """Reads the file again if it has changed, and says so. A file gone or broken changes nothing but `problem`."""
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
        """How many keys work."""
        return len(self._keys)

    @property
    def open_to_all(self) -> bool:
        """Whether no key is needed. A file that ever held a key, revoked or not, needs one."""
        return self._anonymous_allowed and not self._known

    @property
    def usable(self) -> bool:
        """Whether anybody can call at all."""
        return bool(self._keys) or self.open_to_all

    def caller(self, authorization: str | None) -> Caller:
        """Who sends this Authorization header. Raises Unauthorized."""
        if authorization is None:
            if self.open_to_all:
                return Caller(tenant=ANONYMOUS_TENANT, key_id="")
            raise errors.Unauthorized
        scheme, _, key = authorization.partition(" ")
        match = _KEY.fullmatch(key.strip()) if scheme.lower() == "bearer" else None
        if match is None:
            raise errors.Unauthorized
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
