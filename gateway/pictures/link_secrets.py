"""The secrets that sign image URLs: one file in the data folder, shared by all gateways of a stack, and rotated.

A new secret is accepted at once and signs a few seconds later, when every gateway has seen it. The one before it
stays accepted for as long as a URL that it signed may be valid. Two gateways that start at once agree, because the
file is made and changed under a lock. `DARKROOM_GATEWAY_LINK_SECRET` replaces the file where gateways share none.
"""

import hmac
import itertools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from gateway.private_file import PrivateFile

MAX_VALID_S = 7 * 86_400
"""The longest life that a signed URL may be given; a rotated secret is accepted for as long."""
SIGNS_AFTER_MS = 10_000
"""Age at which a new secret begins to sign: ten times the second between two looks of a gateway at the file."""
MIN_SECRET_CHARS = 32
_DAY_MS = 86_400_000


class LinkSecretsError(Exception):
    """The file of secrets cannot be used; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSecret:
    """The keys derived from one secret. `id` names the secret in URLs and reveals nothing of it."""

    id: str
    mac_key: bytes
    cipher_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    secret: str
    created_at_ms: int


class LinkSecrets(Protocol):
    """The secrets that are valid at a time, given in milliseconds of Unix time."""

    def signing(self, now_ms: int) -> LinkSecret:
        """The secret to sign with."""

    def accepted(self, secret_id: str, now_ms: int) -> LinkSecret | None:
        """The secret with this id while a URL that it signed may be valid; otherwise None."""


def drawn_from(text: str) -> LinkSecret:
    """The keys derived from `text`, which should have 128 random bits or more."""

    def derived(purpose: bytes) -> bytes:
        return hmac.digest(text.encode(), b"darkroom signed url: " + purpose, "sha256")

    return LinkSecret(id=derived(b"id").hex()[:8], mac_key=derived(b"mac"), cipher_key=derived(b"cipher"))


class FixedLinkSecrets:
    """Secrets from a setting: the first signs, all are accepted. Fits LinkSecrets."""

    def __init__(self, texts: Sequence[str]) -> None:
        drawn = [drawn_from(text) for text in texts]
        self.problem = ""
        self._first = drawn[0]
        self._by_id: Mapping[str, LinkSecret] = {each.id: each for each in drawn}

    def signing(self, now_ms: int) -> LinkSecret:  # noqa: ARG002
        """The first."""
        return self._first

    def accepted(self, secret_id: str, now_ms: int) -> LinkSecret | None:  # noqa: ARG002
        """Any of them."""
        return self._by_id.get(secret_id)

    def refresh(self, now_ms: int) -> None:
        """Does nothing: a setting does not change."""


class LinkSecretFile:
    """The file, and its content in memory. Fits LinkSecrets."""

    def __init__(self, path: Path, *, rotate_days: int) -> None:
        self._file = PrivateFile(path, LinkSecretsError)
        self._rotate_ms = rotate_days * _DAY_MS
        self._stamp: tuple[int, int, int] | None = None
        self.problem = ""
        """What is wrong with the file; empty: nothing."""
        self._known: Sequence[tuple[LinkSecret, int]] = ()  # with their times of creation, the oldest first

    def load(self, now_ms: int) -> None:
        """Reads the file; creates it if there is none. Raises LinkSecretsError."""
        if self._file.stamp() is None:  # asked again under the lock: another gateway may be first
            self._change(now_ms, lambda known: known or [_fresh(now_ms)])
        self._read()

    def refresh(self, now_ms: int) -> None:
        """Reads the file if it has changed, and rotates a secret that is due.

        A missing or broken file sets `problem`; the secrets in memory stay in use.
        """
        try:
            if self._file.stamp() is None:
                self.problem = "the file of link secrets is gone"
                return
            if self._file.stamp() != self._stamp:
                self._read()
            if self._rotate_ms and now_ms - self._known[-1][1] >= self._rotate_ms:
                self.rotate(now_ms, if_older_than_ms=self._rotate_ms)
        except LinkSecretsError:
            self.problem = "the file of link secrets cannot be used"
        else:
            self.problem = ""

    def rotate(self, now_ms: int, *, if_older_than_ms: int = 0, keep: bool = True) -> None:
        """Adds a new secret or, without `keep`, replaces all by it, which ends every URL issued.

        Changes nothing if the newest secret is younger than `if_older_than_ms`. Raises LinkSecretsError.
        """

        def rotated(known: list[_Record]) -> list[_Record]:
            if known and now_ms - known[-1].created_at_ms < if_older_than_ms:
                return known  # another gateway has rotated first
            return [*(known if keep else ()), _fresh(now_ms)]

        self._change(now_ms, rotated)
        self._read()

    def signing(self, now_ms: int) -> LinkSecret:
        """The newest secret old enough to be known to every gateway; the oldest if none is."""
        old = [secret for secret, born in self._known if now_ms - born >= SIGNS_AFTER_MS]
        return old[-1] if old else self._known[0][0]

    def accepted(self, secret_id: str, now_ms: int) -> LinkSecret | None:
        """The secret with this id. For an unknown id reads the file first: another gateway may have just added it."""
        if all(secret.id != secret_id for secret, _ in self._known):
            self.refresh(now_ms)
        return self._find(secret_id, now_ms)

    def _find(self, secret_id: str, now_ms: int) -> LinkSecret | None:
        for index, (secret, _) in enumerate(self._known):
            if secret.id == secret_id:
                following = self._known[index + 1][1] if index + 1 < len(self._known) else now_ms
                return secret if now_ms - following <= _kept_ms() else None
        return None

    def _read(self) -> None:
        stamp = self._file.stamp()  # before the content: a change in between is then seen at the next refresh
        records = self._records()
        if not records:
            raise LinkSecretsError(f"{self._file.path}: holds no secret")
        self._known = [(drawn_from(each.secret), each.created_at_ms) for each in records]
        self._stamp = stamp

    def _records(self) -> list[_Record]:
        try:
            document = self._file.read()
            return [] if document is None else [_Record(**each) for each in document["secrets"]]
        except (ValueError, TypeError, KeyError):
            raise LinkSecretsError(f"{self._file.path}: is no file of link secrets") from None

    def _change(self, now_ms: int, change: "_Change") -> None:
        with self._file.locked():
            before = self._records()
            after = _without_outlived(change(before), now_ms)
            if after != before:
                self._file.write({"version": 1, "secrets": [asdict(each) for each in after]})


class _Change(Protocol):
    def __call__(self, known: list[_Record], /) -> list[_Record]: ...


def _fresh(now_ms: int) -> _Record:
    return _Record(secret=secrets.token_urlsafe(32), created_at_ms=now_ms)


def _kept_ms() -> int:
    # A secret still signs for SIGNS_AFTER_MS after its successor was made; as much again is slack.
    return MAX_VALID_S * 1000 + 2 * SIGNS_AFTER_MS


def _without_outlived(records: list[_Record], now_ms: int) -> list[_Record]:
    followed = itertools.pairwise(records)
    return [each for each, after in followed if now_ms - after.created_at_ms <= _kept_ms()] + records[-1:]
