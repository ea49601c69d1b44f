"""A proxy before the SQS and S3 emulator that injects faults into calls.

    with FaultyCloud(seed=7) as cloud:
        stack = Stack(folder, env={"AWS_ENDPOINT_URL": cloud.url})
        cloud.target = stack.emulator_port
        with cloud.faulty(Rule("SendMessageBatch", refused(), share=0.3)):
            ...

An action gets the call and answers it, or returns None to lose the answer: the connection is reset. Whether the
emulator hears of the call is the action's choice.
"""

import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from aiohttp import web
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.emulators import SECRET
from tests.fault_proxy import InThread
from tests.process import free_port

_OF_SIGNATURE = frozenset({"authorization", "x-amz-date", "x-amz-content-sha256"})
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "expect"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer of the emulator, or of ours. `cut`: only this share of the body is sent, under the whole length."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: float = 1.0

    def json(self) -> dict[str, Any]:
        found = json.loads(self.body or b"{}")
        assert isinstance(found, dict), found
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a service. `operation` is AWS's name for it; `forward` lets the emulator do it."""

    operation: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    draw: random.Random
    forward_raw: Callable[["Call"], Awaitable[Reply]]

    async def forward(self, **changes: Any) -> Reply:
        """Sends the call to the emulator. With `changes` it is signed again: the emulator checks signatures."""
        return await self.forward_raw(_signed_again(replace(self, **changes)) if changes else self)

    async def ask(self, body: Mapping[str, Any]) -> Reply:
        """The same SQS operation with another body."""
        return await self.forward(body=json.dumps(body).encode())

    def json(self) -> dict[str, Any]:
        """The body of an SQS call."""
        found = json.loads(self.body or b"{}")
        assert isinstance(found, dict), found
        return found


def _signed_again(call: Call) -> Call:
    kept = {name: value for name, value in call.headers.items() if name.lower() not in _OF_SIGNATURE}
    host = next(value for name, value in kept.items() if name.lower() == "host")
    request = AWSRequest(method=call.method, url=f"http://{host}{call.path}", data=call.body, headers=kept)
    is_sqs = any(name.lower() == "x-amz-target" for name in kept)
    signer = SigV4Auth if is_sqs else S3SigV4Auth
    signer(Credentials("local", SECRET), "sqs" if is_sqs else "s3", "us-east-1").add_auth(request)
    return replace(call, headers=dict(request.headers.items()))


Action = Callable[[Call], Awaitable[Reply | None]]


@dataclass(slots=True)
class Rule:
    """Applies `action` to a share of the calls of one operation, at most `times` (-1: no limit).

    `where`: only calls whose path or body contains it. `body_share`: below 1, the action gets the call once this share
    of its body has come; `where` is then looked for in the path only.
    """

    operation: str
    action: Action
    share: float = 1.0
    times: int = -1
    where: str = ""
    body_share: float = 1.0
    hits: int = 0

    def applies(self, call: Call) -> bool:
        if call.operation != self.operation or self.hits == self.times:
            return False
        if self.where and self.where not in call.path and self.where.encode() not in call.body:
            return False
        return call.draw.random() < self.share


class FaultyCloud(InThread):
    """Stands at `url` before the emulator at the loopback port `target`."""

    def __init__(self, target: int = 0, *, seed: int = 0) -> None:
        super().__init__()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.target = target
        self.rules: tuple[Rule, ...] = ()
        self.calls: Counter[str] = Counter()
        """Calls by operation."""
        self._draw = random.Random(seed)
        self._session: aiohttp.ClientSession | None = None

    @contextmanager
    def faulty(self, *rules: Rule) -> Iterator[tuple[Rule, ...]]:
        """These rules while inside, none afterwards. The first that applies acts."""
        self.rules = rules
        try:
            yield rules
        finally:
            self.rules = ()

    async def start(self) -> Callable[[], Awaitable[None]]:
        timeout = aiohttp.ClientTimeout(total=60)
        session = aiohttp.ClientSession(
            auto_decompress=False, timeout=timeout, connector=aiohttp.TCPConnector(limit=200, force_close=True)
        )
        self._session = session
        runner = web.ServerRunner(web.Server(self._serve, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()

        async def stop() -> None:
            await runner.cleanup()
            await session.close()

        return stop

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        call = Call(
            operation=operation(request.method, request.path_qs, request.headers),
            method=request.method,
            path=request.raw_path,
            headers={name: value for name, value in request.headers.items() if name.lower() not in _HOP},
            body=b"",
            draw=self._draw,
            forward_raw=self._forward,
        )
        self.calls[call.operation] += 1
        rule = next((each for each in self.rules if each.body_share < 1 and each.applies(call)), None)
        call = replace(call, body=await _body(request, 1.0 if rule is None else rule.body_share))
        if rule is None:
            rule = next((each for each in self.rules if each.body_share == 1 and each.applies(call)), None)
        try:
            if rule is None:
                reply: Reply | None = await call.forward()
            else:
                rule.hits += 1
                reply = await rule.action(call)
        except (aiohttp.ClientError, OSError):
            reply = None
        return await _answer(request, reply)

    async def _forward(self, call: Call) -> Reply:
        assert self._session is not None
        async with self._session.request(
            call.method,
            _url(self.target, call.path),
            headers=call.headers,
            data=call.body or None,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            allow_redirects=False,
        ) as answer:
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if call.method == "HEAD":
                headers["Content-Length"] = answer.headers.get("Content-Length", "0")
            return Reply(status=answer.status, headers=headers, body=await answer.read())


def operation(method: str, path: str, headers: Mapping[str, str]) -> str:
    """AWS's name for a call: SQS says it itself, S3 is guessed as far as our services use it."""
    target = headers.get("X-Amz-Target", "")
    if target:
        return target.rpartition(".")[2]
    if method == "PUT" and "x-amz-copy-source" in {name.lower() for name in headers}:
        return "CopyObject"
    key = path.partition("?")[0].strip("/").partition("/")[2]
    return {
        ("PUT", True): "PutObject",
        ("GET", True): "GetObject",
        ("HEAD", True): "HeadObject",
        ("POST", False): "DeleteObjects",
    }.get((method, bool(key)), f"{method} bucket")


async def _body(request: web.BaseRequest, share: float) -> bytes:
    """The whole body, or no more than has come when this share of it has."""
    if share == 1:
        return await request.read()
    data, wanted = b"", share * (request.content_length or 0)
    while len(data) < wanted and (piece := await request.content.readany()):
        data += piece
    return data


def _url(port: int, path: str) -> Any:
    from yarl import URL

    return URL(f"http://127.0.0.1:{port}{path}", encoded=True)


async def _answer(request: web.BaseRequest, reply: Reply | None) -> web.StreamResponse:
    """Send the reply, whole or cut; None, or what was cut, ends in a reset."""
    if reply is None:
        _reset(request)
        return web.Response(status=502)
    if reply.cut >= 1:
        return web.Response(status=reply.status, headers=reply.headers, body=reply.body or None)
    answer = web.StreamResponse(status=reply.status, headers={**reply.headers, "Content-Length": str(len(reply.body))})
    await answer.prepare(request)
    await answer.write(reply.body[: int(len(reply.body) * reply.cut)])
    _reset(request)
    return answer


def _reset(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
