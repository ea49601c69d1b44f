"""The lock before the embedded emulator: ASGI middleware in its own process, so that no call pays for a proxy.

Without the lock the emulator answers every caller, web pages of any origin included. With it, a request passes only if
it is addressed to this server, comes from no web page, names no administrative path and is signed with the stack's
secret.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from infra.local import sigv4
from infra.local.sigv4 import Checked, Key, Refused, Signed

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ALIVE_PATH = "/_darkroom/alive"
"""Answers GET without a signature, and says nothing but that the process serves."""
_ADMIN = ("/_ministack", "/_localstack", "/_aws", "/_alb", "/health", "/_darkroom")
_MAX_BODY_BYTES = 2 * 1_048_576  # of a call whose signature covers the body: SQS takes 1 MiB in all
_ADMIN_HINT = "administration is closed"


class Lock:
    """`hosts`: what a Host header may be: `name:port`, or `name:*` for any port."""

    def __init__(
        self, app: App, key: Key, *, hosts: Collection[str], now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._app = app
        self._key = key
        self._hosts = frozenset(host.lower() for host in hosts)
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        try:
            self._check_sender(scope, headers)
            if scope["path"] == ALIVE_PATH and scope["method"] in {"GET", "HEAD"}:
                await _answer(send, 200, b'{"status":"ok"}', "application/json")
                return
            _check_path(scope["path"])
            checked = sigv4.check_claim(_signed(scope, headers), self._key, self._now())
            receive = await self._verified(checked, receive)
        except Refused as error:
            await _refuse(send, headers, error)
            return
        body = _CheckedBody(receive, checked.stated_sha256)
        guarded = _Answer(send)
        await self._app(scope, body, guarded)
        if body.is_wrong and not guarded.started:
            await _refuse(
                send, headers, Refused("XAmzContentSHA256Mismatch", "the body is not the one that was signed")
            )

    def _check_sender(self, scope: Scope, headers: dict[str, str]) -> None:
        hosts = [value for name, value in scope["headers"] if name.lower() == b"host"]
        host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
        name = host.rpartition(":")[0]
        if not (host in self._hosts or (name and f"{name}:*" in self._hosts)):
            raise Refused("AccessDenied", "the Host header names another server")
        if "origin" in headers or scope["method"] == "OPTIONS" or "access-control-request-method" in headers:
            raise Refused("AccessDenied", "web pages are not served")

    async def _verified(self, checked: Checked, receive: Receive) -> Receive:
        """Checks the signature and returns the `receive` that gives the emulator the body. Raises Refused."""
        if not checked.needs_body:
            sigv4.check_signature(checked, self._key)
            return receive
        body = await _whole(receive)
        sigv4.check_signature(checked, self._key, body)
        return _Replay(body, receive)


def _check_path(path: str) -> None:
    if any(path == each or path.startswith(each + "/") for each in _ADMIN):
        raise Refused("AccessDenied", _ADMIN_HINT)


def _headers(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("utf-8", "surrogateescape")
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _signed(scope: Scope, headers: dict[str, str]) -> Signed:
    path = scope["raw_path"].decode("latin-1").partition("?")[0]
    return Signed(method=scope["method"], path=path, query=scope["query_string"].decode("latin-1"), headers=headers)


async def _whole(receive: Receive) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused("IncompleteBody", "the connection was closed before the body was complete")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > _MAX_BODY_BYTES:
            raise Refused("EntityTooLarge", "the body is too large")
        if not message.get("more_body", False):
            return b"".join(parts)


class _Replay:
    """Gives a body that was read already, then what comes after it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _CheckedBody:
    """Passes the body on. If its digest is not the signed one, the emulator sees a disconnect in place of its end."""

    def __init__(self, receive: Receive, sha256: str | None) -> None:
        self._receive = receive
        self._wanted = sha256
        self._digest = hashlib.sha256()
        self._over = sha256 is None
        self.is_wrong = False

    async def __call__(self) -> Message:
        message = await self._receive()
        if self._over or message["type"] != "http.request":
            return message
        self._digest.update(message.get("body", b""))
        if not message.get("more_body", False):
            self._over = True
            if self._digest.hexdigest() != self._wanted:
                self.is_wrong = True
                return {"type": "http.disconnect"}
        return message


class _Answer:
    """Strips CORS headers from answers, so that no web page can read them."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = [
                pair for pair in message.get("headers", []) if not pair[0].lower().startswith(b"access-control-")
            ]
            message = {**message, "headers": headers}
        await self._send(message)


async def _refuse(send: Send, headers: dict[str, str], error: Refused) -> None:
    if "x-amz-target" in headers:  # SQS speaks JSON, S3 XML; the clients read the code from either
        body = json.dumps({"__type": f"com.amazonaws.sqs#{error.code}", "message": str(error)}).encode()
        await _answer(send, 403, body, "application/x-amz-json-1.0")
        return
    text = f"<Error><Code>{error.code}</Code><Message>{escape(str(error))}</Message></Error>"
    await _answer(send, 403, f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode(), "application/xml")


async def _answer(send: Send, status: int, body: bytes, content_type: str) -> None:
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"date", date.encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
