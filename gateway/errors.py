"""Every way in which a request can fail. `problems.py` turns these into HTTP, in one place.

::

    Exception
    └── GatewayError
        ├── UserFault                the client can correct it
        │   ├── BadSyntax            400  the body is not JSON, or is ambiguous
        │   ├── Unauthorized         401  no valid key
        │   ├── Forbidden            403  a signed URL that is expired or altered; a foreign Host or Origin
        │   ├── NotFound             404  unknown id and another tenant's id alike
        │   │   └── NoSuchEndpoint   404  the API has no such path
        │   ├── MethodNotAllowed     405
        │   ├── RequestTimedOut      408  the body did not arrive in time
        │   ├── TooLate              409  cancel: the generation is decided already
        │   ├── NotEnded             409  erase: the generation has not ended yet
        │   ├── NotReady             409  the image is not published yet
        │   ├── Gone                 410  the image does not exist any more, or never will
        │   ├── ConditionFailed      412  If-Match names another picture
        │   ├── BodyTooLarge         413
        │   ├── UnsupportedMedia     415  not JSON, or compressed
        │   ├── RangeUnsatisfiable   416  no byte of the picture is in the range
        │   ├── InvalidFields        422  with a list of fields and what is wrong with each
        │   ├── KeyConflict          422  the same Idempotency-Key came with another body
        │   ├── RateLimited          429  a rule of the gateway
        │   └── BacklogFull          429  core accepts no more for now
        ├── StoreRefused             502  the picture store refuses the gateway, or holds another picture
        ├── Unavailable              503  also infra.retry.Retryable: core cannot be reached or does not answer
        └── Broken                   500  also infra.retry.Permanent: an internal error

Texts are generic: they name no host, no internal part and no content of a request but field names.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from infra.retry import Permanent, Retryable


class GatewayError(Exception):
    """Base of the tree. `detail` is shown to the client; `param` names the invalid field, if there is one.

    `retry_after_s` becomes Retry-After; `headers` are added to the answer.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str = "", *, param: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers: Mapping[str, str] = {}


class UserFault(GatewayError):
    """The client can correct it."""


class BadSyntax(UserFault):
    status, slug, title = 400, "malformed-request", "The request cannot be read"


class Unauthorized(UserFault):
    status, slug, title = 401, "unauthorized", "A valid API key is required"

    def __init__(self) -> None:
        super().__init__("Send `Authorization: Bearer dk_…` with a key that has not been revoked.")
        self.headers = {"WWW-Authenticate": 'Bearer realm="darkroom"'}


class Forbidden(UserFault):
    """Refused for every caller."""

    status, slug, title = 403, "forbidden", "The request is refused"


class SignedUrlInvalid(Forbidden):
    slug, title = "signed-url-invalid", "The URL's signature is not valid"

    def __init__(self) -> None:
        super().__init__("Use the URL exactly as given in `images[].signed_url`, or the stable link with an API key.")


class SignedUrlExpired(Forbidden):
    slug, title = "signed-url-expired", "The signed URL has expired"

    def __init__(self) -> None:
        super().__init__("Get the generation again for a fresh `signed_url`, or use the stable link with an API key.")


class ForeignHost(Forbidden):
    slug, title = "foreign-host", "The request is for another host"

    def __init__(self) -> None:
        super().__init__(
            "Without API keys this gateway answers only under the names of this machine: call it as 127.0.0.1, [::1] "
            "or localhost, or make a key with `python -m gateway keys create TENANT`."
        )


class ForeignOrigin(Forbidden):
    slug, title = "foreign-origin", "The request comes from a page of another origin"

    def __init__(self) -> None:
        super().__init__(
            "Without API keys this gateway answers no pages but its own: make a key with "
            "`python -m gateway keys create TENANT`, and name the page's origin in DARKROOM_GATEWAY_CORS_ORIGINS."
        )


class NotFound(UserFault):
    status, slug, title = 404, "generation-not-found", "There is no such generation"


class NoSuchImage(NotFound):
    slug, title = "image-not-found", "The generation has no such image"


class NoSuchEndpoint(NotFound):
    """`closest` is the path that was probably meant."""

    slug, title = "endpoint-not-found", "There is no such endpoint"

    def __init__(self, closest: str | None = None) -> None:
        hint = f"Did you mean {closest}? " if closest else ""
        super().__init__(f"There is no such endpoint. {hint}The paths are listed at /docs.")


class MethodNotAllowed(UserFault):
    status, slug, title = 405, "method-not-allowed", "This path does not take this method"

    def __init__(self, allowed: str) -> None:
        super().__init__()
        self.headers = {"Allow": allowed}


class RequestTimedOut(UserFault):
    status, slug, title = 408, "request-timeout", "The request's body did not arrive in time"


class TooLate(UserFault):
    """`state` is the status that the generation has."""

    status, slug, title = 409, "too-late", "The generation can no longer be cancelled"

    def __init__(self, state: str) -> None:
        super().__init__(f"The generation is {state}, and each of its images is decided.")
        self.state = state


class NotEnded(UserFault):
    """`state` is the status that the generation has."""

    status, slug, title = 409, "not-ended", "The generation has not ended yet"

    def __init__(self, state: str) -> None:
        super().__init__(f"The generation is {state}: cancel it, or wait for its end, and erase it then.")
        self.state = state


class NotReady(UserFault):
    status, slug, title = 409, "image-not-ready", "The image is not there yet"


class Gone(UserFault):
    status, slug, title = 410, "image-gone", "The image is not available and will not be"


class ConditionFailed(UserFault):
    status, slug, title = 412, "precondition-failed", "If-Match names another picture"


class BodyTooLarge(UserFault):
    status, slug, title = 413, "body-too-large", "The request's body is too large"


class UnsupportedMedia(UserFault):
    status, slug, title = 415, "unsupported-media-type", "The request's body is of a kind that is not taken"


class RangeUnsatisfiable(UserFault):
    """`size` is the picture's, in bytes."""

    status, slug, title = 416, "range-not-satisfiable", "The picture has no byte in this range"

    def __init__(self, size: int) -> None:
        super().__init__(f"The picture has {size} bytes.")
        self.headers = {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}


class InvalidFields(UserFault):
    """`errors` are pairs of field and message."""

    status, slug, title = 422, "invalid-fields", "The request has invalid fields"

    def __init__(self, errors: Sequence[tuple[str, str]]) -> None:
        first, message = errors[0]
        super().__init__(f"{first}: {message}", param=first)
        self.errors = tuple(errors)


class KeyConflict(UserFault):
    status, slug, title = 422, "idempotency-key-reused", "The Idempotency-Key was used with another body"


class RateLimited(UserFault):
    status, slug, title = 429, "rate-limited", "Too many requests"


class BacklogFull(UserFault):
    """`bound`: "share" (the tenant's own share is used up) or "everything". Neither reveals other tenants."""

    status, slug, title = 429, "backlog-full", "Too much work is waiting"

    def __init__(self, bound: str, *, retry_after_s: int) -> None:
        super().__init__(_BACKLOG_BOUNDS.get(bound, ""), retry_after_s=retry_after_s)
        self.bound = bound


_BACKLOG_BOUNDS = {
    "share": "The backlog is full, and your unfinished work has reached your share of it: it fits again as that ends.",
    "everything": "The service holds as much unfinished work as it can: try again later.",
}


class StoreRefused(GatewayError, Permanent):
    """The picture store refuses the gateway, or holds another picture than the published one. The log says which."""

    status, slug, title = 502, "store-refused", "The picture store does not give the picture"


class Unavailable(GatewayError, Retryable):
    """Core cannot be reached or does not answer in time; the same request may succeed later."""

    status, slug, title = 503, "unavailable", "The service is not available for the moment"

    def __init__(self, detail: str = "", *, retry_after_s: int = 2) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)


class Broken(GatewayError, Permanent):
    """An internal error. Its detail is never shown."""
