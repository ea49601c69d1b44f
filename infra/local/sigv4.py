"""Checks AWS Signature Version 4 on a request, for the lock before the embedded emulator. Pure: no I/O and no clock.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
Header signatures and presigned links of S3 and SQS are known; anything else is refused.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNSIGNED = "UNSIGNED-PAYLOAD"
_SERVICES = frozenset({"s3", "sqs"})
_SKEW = timedelta(minutes=15)  # what S3 and SQS allow
_LONGEST_LINK_S = 7 * 86_400
_DATE = re.compile(r"\d{8}T\d{6}Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Refused(Exception):
    """The request is not signed with our key. `code` is AWS's name for the reason."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An access key."""

    id: str
    secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A request as it came: `path` and `query` are still encoded, `headers` have lower-case names, values joined."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]

    @property
    def body_sha256(self) -> str | None:
        """The digest that the sender states for the body; None: the body itself is what is signed."""
        return self.headers.get("x-amz-content-sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    access_key: str
    day: str
    region: str
    service: str
    signed_headers: str
    signature: str
    date: str
    expires_s: int | None = None
    """Of a presigned link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A request that has passed `check_claim`. Its signature is yet to be checked, which may need the body."""

    request: Signed
    claim: _Claim

    @property
    def needs_body(self) -> bool:
        """Whether the signature covers the body itself, and not a digest that the request states."""
        return self.claim.expires_s is None and self.request.body_sha256 is None

    @property
    def stated_sha256(self) -> str | None:
        """The SHA-256 that the body must have; None if the signature covers the body itself, or excludes it."""
        stated = self.request.body_sha256
        return None if self.claim.expires_s is not None or stated in {None, _UNSIGNED} else stated


def check_claim(request: Signed, key: Key, now: datetime) -> Checked:
    """Checks all but the signature: key id, service, time and signed headers. Raises Refused."""
    claim = _claim(request)
    if not hmac.compare_digest(claim.access_key.encode(), key.id.encode()):
        raise Refused("InvalidAccessKeyId", "this access key is not the emulator's")
    if claim.service not in _SERVICES:
        raise Refused("AccessDenied", "only s3 and sqs are served")
    _check_time(claim, now)
    names = claim.signed_headers.split(";")
    unsigned = {name for name in request.headers if name.startswith("x-amz-")} - set(names)
    if "host" not in names or unsigned:
        raise Refused("AccessDenied", "the host and every x-amz-* header must be signed")
    stated = request.body_sha256
    if claim.expires_s is None and stated not in {None, _UNSIGNED} and not _SHA256.fullmatch(stated or ""):
        raise Refused("NotImplemented", "signatures chunk by chunk are not served")
    return Checked(request=request, claim=claim)


def check_signature(checked: Checked, key: Key, body: bytes = b"") -> None:
    """The signature itself, compared in constant time. `body` counts where `needs_body`. Raises Refused."""
    claim, request = checked.claim, checked.request
    presigned = claim.expires_s is not None
    if presigned:
        payload = _UNSIGNED if claim.service == "s3" else hashlib.sha256(b"").hexdigest()
    else:
        payload = request.body_sha256 or hashlib.sha256(body).hexdigest()
    names = claim.signed_headers.split(";")
    canonical = "\n".join(
        [
            request.method,
            request.path or "/" if claim.service == "s3" else quote(request.path or "/", safe="/-_.~"),
            _canonical_query(request.query),
            *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in names),
            "",
            claim.signed_headers,
            payload,
        ]
    )
    scope = f"{claim.day}/{claim.region}/{claim.service}/aws4_request"
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    text = f"{_ALGORITHM}\n{claim.date}\n{scope}\n{digest}"
    signing_key = _signing_key(key.secret, claim.day, claim.region, claim.service)
    wanted = hmac.digest(signing_key, text.encode(), "sha256").hex()
    if not hmac.compare_digest(wanted.encode(), claim.signature.encode("utf-8", "surrogateescape")):
        raise Refused("SignatureDoesNotMatch", "the signature is not that of the emulator's secret")


def _claim(request: Signed) -> _Claim:
    by_query = _query_values(request.query)
    presigned = "X-Amz-Signature" in by_query
    if presigned and "authorization" in request.headers:
        raise Refused("InvalidArgument", "signed twice: in the query and in a header")
    if presigned:
        return _query_claim(by_query)
    if "authorization" not in request.headers:
        raise Refused("AccessDenied", "the request is not signed")
    return _header_claim(request.headers)


def _header_claim(headers: Mapping[str, str]) -> _Claim:
    algorithm, _, rest = headers["authorization"].partition(" ")
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if algorithm != _ALGORITHM or fields.keys() != {"Credential", "SignedHeaders", "Signature"}:
        raise Refused("AccessDenied", f"only {_ALGORITHM} is served")
    if "x-amz-date" not in headers:
        raise Refused("AccessDenied", "x-amz-date is missing")
    access_key, day, region, service = _scope(fields["Credential"])
    return _Claim(
        access_key=access_key,
        day=day,
        region=region,
        service=service,
        signed_headers=fields["SignedHeaders"],
        signature=fields["Signature"],
        date=headers["x-amz-date"],
    )


def _query_claim(values: Mapping[str, list[str]]) -> _Claim:
    names = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
    found = {name: values.get(f"X-Amz-{name}", []) for name in names}
    if any(len(each) != 1 for each in found.values()):
        raise Refused("AuthorizationQueryParametersError", "a presigned link has each X-Amz- parameter once")
    one = {name: each[0] for name, each in found.items()}
    if one["Algorithm"] != _ALGORITHM:
        raise Refused("AuthorizationQueryParametersError", f"only {_ALGORITHM} is served")
    expires = one["Expires"]
    if not (expires.isascii() and expires.isdecimal() and len(expires) <= 6 and 1 <= int(expires) <= _LONGEST_LINK_S):
        raise Refused("AuthorizationQueryParametersError", "X-Amz-Expires must be from 1 to 604800")
    access_key, day, region, service = _scope(one["Credential"])
    return _Claim(
        access_key=access_key,
        day=day,
        region=region,
        service=service,
        signed_headers=one["SignedHeaders"],
        signature=one["Signature"],
        date=one["Date"],
        expires_s=int(expires),
    )


def _scope(credential: str) -> tuple[str, str, str, str]:
    parts = credential.split("/")
    if len(parts) != 5 or parts[4] != "aws4_request":
        raise Refused("AccessDenied", "the credential scope is none")
    return parts[0], parts[1], parts[2], parts[3]


def _check_time(claim: _Claim, now: datetime) -> None:
    try:
        if not _DATE.fullmatch(claim.date):
            raise ValueError
        signed_at = datetime.fromisoformat(claim.date)
    except ValueError:
        raise Refused("AccessDenied", "the date of the signature is none") from None
    if claim.day != claim.date[:8]:
        raise Refused("AccessDenied", "the date of the credential scope is another")
    if signed_at > now + _SKEW or (claim.expires_s is None and signed_at < now - _SKEW):
        raise Refused("RequestTimeTooSkewed", "the difference between the request time and the server's is too large")
    if claim.expires_s is not None and now > signed_at + timedelta(seconds=claim.expires_s):
        raise Refused("AccessDenied", "Request has expired")


def _pairs(query: str) -> list[tuple[bytes, bytes]]:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in pairs]


def _query_values(query: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in _pairs(query):
        found.setdefault(name.decode("utf-8", "replace"), []).append(value.decode("utf-8", "replace"))
    return found


def _canonical_query(query: str) -> str:
    encoded = ((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in _pairs(query))
    return "&".join(f"{name}={value}" for name, value in sorted(encoded) if name != "X-Amz-Signature")


@lru_cache(maxsize=16)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    found = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        found = hmac.digest(found, part.encode(), "sha256")
    return found
