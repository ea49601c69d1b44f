"""Signed URLs: who holds one may fetch one image of one generation until it expires, without any header.

The tenant must be known to look the image up and must not be shown, so it travels encrypted. Tag and cipher are those
of a synthetic initialisation vector (RFC 5297's construction, with HMAC-SHA256 for both parts): the tag authenticates
tenant, generation, index and expiry, and is the nonce of the tenant's encryption. The host is not signed, so a URL is
valid under every name of every gateway of the stack.
"""

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.errors import SignedUrlExpired, SignedUrlInvalid
from gateway.pictures.link_secrets import LinkSecret, LinkSecrets

SIGNATURE, EXPIRES = "signature", "expires"
"""The names of the query's parameters."""
_TAG_BYTES = 16
_PADDED_TO = 16  # so that a signature's length does not reveal that of a tenant's name
_MAX_CHARS = 160
_STEPS_PER_LIFE = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a valid signature allows: to fetch an image of `tenant` until `until_s` (Unix time in seconds)."""

    tenant: str
    until_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Urls:
    """Makes the signed URLs of one answer. `origin` goes before the path; all expire at `expires_s` (Unix time)."""

    origin: str
    tenant: str
    expires_s: int
    secret: LinkSecret

    @property
    def mark(self) -> str:
        """Changes with the expiry and the secret, and so with the URLs; part of an answer's ETag."""
        return f"{self.expires_s:x}-{self.secret.id}"

    def url(self, generation_id: str, index: int) -> str:
        """The signed URL of one image."""
        padded = self.tenant.encode("ascii")
        padded += b"\0" * (-len(padded) % _PADDED_TO)
        tag = _tag(self.secret, self.tenant, generation_id, index, self.expires_s)
        token = base64.urlsafe_b64encode(tag + _crypted(self.secret, tag, padded)).rstrip(b"=").decode("ascii")
        path = f"/v1/generations/{generation_id}/images/{index}"
        return f"{self.origin}{path}?{EXPIRES}={self.expires_s}&{SIGNATURE}={self.secret.id}.{token}"


class Signer:
    """Signs for `valid_s` seconds at most, and checks. `now_ms` is Unix time."""

    def __init__(self, secrets: LinkSecrets, *, valid_s: int, now_ms: Callable[[], int]) -> None:
        self._secrets = secrets
        self._valid_s = valid_s
        self._step_s = max(1, valid_s // _STEPS_PER_LIFE)
        self._now_ms = now_ms

    def urls(self, tenant: str, origin: str) -> Urls:
        """The URLs for an answer to this tenant.

        Expiry is rounded down to a multiple of a sixtieth of `valid_s`, so that bodies and ETags change no more often.
        """
        now_ms = self._now_ms()
        end = (now_ms // 1000 + self._valid_s) // self._step_s * self._step_s
        return Urls(origin=origin, tenant=tenant, expires_s=end, secret=self._secrets.signing(now_ms))

    def checked(self, query: Mapping[str, list[str]], generation_id: str, index: int) -> Grant:
        """What the query's signature gives for this image. Raises SignedUrlInvalid or SignedUrlExpired."""
        expires, signature = query.get(EXPIRES, []), query.get(SIGNATURE, [])
        if len(expires) != 1 or len(signature) != 1 or len(signature[0]) > _MAX_CHARS:
            raise SignedUrlInvalid
        until_s = _seconds(expires[0])
        secret_id, _, token = signature[0].partition(".")
        now_ms = self._now_ms()
        secret = self._secrets.accepted(secret_id, now_ms)
        tag, encrypted = _parts(token)
        if secret is None:
            raise SignedUrlInvalid
        try:  # decryption before authentication, since the tag is over the plain tenant
            tenant = _crypted(secret, tag, encrypted).rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError:
            raise SignedUrlInvalid from None
        if not hmac.compare_digest(tag, _tag(secret, tenant, generation_id, index, until_s)):
            raise SignedUrlInvalid
        if now_ms >= until_s * 1000:
            raise SignedUrlExpired
        return Grant(tenant=tenant, until_s=until_s)


def _tag(secret: LinkSecret, tenant: str, generation_id: str, index: int, expires_s: int) -> bytes:
    """The authentication tag. No field can hold the separator, so no two grants have the same text."""
    text = "\0".join((tenant, generation_id, str(index), str(expires_s)))
    return hmac.digest(secret.mac_key, text.encode("utf-8"), "sha256")[:_TAG_BYTES]


def _crypted(secret: LinkSecret, tag: bytes, data: bytes) -> bytes:
    """Encrypts or decrypts: XOR with a key stream derived from `tag`."""
    blocks = range(-(-len(data) // 32))
    stream = b"".join(hmac.digest(secret.cipher_key, tag + bytes([number]), "sha256") for number in blocks)
    return bytes(one ^ other for one, other in zip(data, stream, strict=False))


def _parts(token: str) -> tuple[bytes, bytes]:
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise SignedUrlInvalid from None
    # Base64 decoding ignores unused last bits; only one spelling of a token is accepted.
    canonical = base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") == token
    if not canonical or len(raw) <= _TAG_BYTES or len(raw) % _PADDED_TO:
        raise SignedUrlInvalid
    return raw[:_TAG_BYTES], raw[_TAG_BYTES:]


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 12 and str(int(text)) == text):
        raise SignedUrlInvalid
    return int(text)
