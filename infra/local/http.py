"""The little HTTP that the local commands speak: readiness probes, and a client's calls for the demo.

Standard library only, and never through a proxy: everything is on loopback.
"""

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import Any

_PROBE_S = 2.0
_CALL_S = 30.0


class HttpError(Exception):
    """An answer with an unexpected status; the text is the server's explanation."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: an image's link may lead to the store, which must not be sent the API key."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status, headers and body."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def call(
    method: str, url: str, *, headers: dict[str, str] | None = None, body: Any = None, timeout_s: float = _CALL_S
) -> Answer:
    """One call; every status is an answer. Raises OSError if there is no answer."""
    data = None if body is None else json.dumps(body).encode()
    given = {"Content-Type": "application/json"} if data is not None else {}
    request = urllib.request.Request(url, method=method, data=data, headers={**given, **(headers or {})})  # noqa: S310
    try:
        with _OPENER.open(request, timeout=timeout_s) as answer:
            return Answer(status=answer.status, headers=answer.headers, body=answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(status=error.code, headers=error.headers, body=error.read())
    except http.client.HTTPException as error:  # something else listens there
        raise OSError(f"{url} does not speak HTTP ({type(error).__name__})") from None


def is_ready(url: str) -> bool:
    """Whether a /readyz answers 200."""
    try:
        return call("GET", url, timeout_s=_PROBE_S).status == HTTPStatus.OK
    except OSError:
        return False


def unready_reasons(url: str) -> str:
    """Why it is not ready, in the service's words."""
    try:
        return ", ".join(call("GET", url, timeout_s=_PROBE_S).json()["reasons"])
    except OSError:
        return "does not answer"
    except (ValueError, KeyError, TypeError):
        return "gives no reason"


def key_is_accepted(url: str, key: str) -> bool:
    """Whether the gateway at `url` knows the key by now."""
    try:
        return call("GET", f"{url}/v1/generations", headers=_bearer(key)).status != HTTPStatus.UNAUTHORIZED
    except OSError:
        return False


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def fetch(url: str, *, key: str) -> bytes:
    """Downloads an image by its stable link; follows a redirect without the key. Raises HttpError and OSError."""
    answer = call("GET", url, headers=_bearer(key))
    if answer.status in {HTTPStatus.FOUND, HTTPStatus.SEE_OTHER, HTTPStatus.TEMPORARY_REDIRECT}:
        answer = call("GET", answer.headers["Location"])
    if answer.status != HTTPStatus.OK:
        raise HttpError(explain(answer))
    return answer.body


def explain(answer: Answer) -> str:
    """A problem+json body as one line."""
    try:
        problem = answer.json()
        return f"{answer.status} {problem.get('title', '')}: {problem.get('detail', '')}"
    except (ValueError, AttributeError):
        return f"{answer.status} {answer.body[:200].decode('utf-8', 'replace')}"
