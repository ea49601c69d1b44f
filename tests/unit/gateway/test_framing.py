"""Requests that two servers in a row could read in two ways (request smuggling): refused, and the connection closed."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.unit.gateway.harness import Rig, rig

BODY = b'{"prompt":"x"}'
HEAD = b"POST /v1/generations HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
NEXT = b"GET /healthz HTTP/1.1\r\nHost: smuggled\r\n\r\n"
CHUNKED = b"e\r\n" + BODY + b"\r\n0\r\n\r\n"

REFUSED = {
    "HTTP/1.0 with a transfer coding": HEAD.replace(b"1.1\r\n", b"1.0\r\n", 1)
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + CHUNKED,
    "HTTP/1.0, kept alive": HEAD.replace(b"1.1\r\n", b"1.0\r\nConnection: keep-alive\r\n", 1)
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + CHUNKED,
    "both lengths": HEAD + b"Content-Length: 14\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "both lengths, the other way": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + CHUNKED,
    "two different lengths": HEAD + b"Content-Length: 14\r\nContent-Length: 0\r\n\r\n" + BODY,
    "the same length twice": HEAD + b"Content-Length: 14\r\nContent-Length: 14\r\n\r\n" + BODY,
    "a list of lengths": HEAD + b"Content-Length: 14, 14\r\n\r\n" + BODY,
    "a length with a sign": HEAD + b"Content-Length: +14\r\n\r\n" + BODY,
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n" + BODY,
    "a length in hexadecimal": HEAD + b"Content-Length: 0xe\r\n\r\n" + BODY,
    "a length with a gap": HEAD + b"Content-Length: 1 4\r\n\r\n" + BODY,
    "an empty length": HEAD + b"Content-Length: \r\n\r\n" + BODY,
    "a folded header": HEAD + b"X-A: 1\r\n Content-Length: 14\r\nContent-Length: 14\r\n\r\n" + BODY,
    "a folded transfer coding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKED,
    "identity": HEAD + b"Transfer-Encoding: identity\r\nContent-Length: 14\r\n\r\n" + BODY,
    "identity alone": HEAD + b"Transfer-Encoding: identity\r\n\r\n" + BODY,
    "gzip": HEAD + b"Transfer-Encoding: gzip\r\n\r\n" + CHUNKED,
    "gzip, then chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKED,
    "chunked twice": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKED,
    "chunked in two headers": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunked, then identity": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + CHUNKED,
    "a coding that looks like chunked": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
    "a coding in quotes": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n' + CHUNKED,
    "a vertical tab before chunked": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKED,
    "a space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKED,
    "a chunk's size with a sign": HEAD + b"Transfer-Encoding: chunked\r\n\r\n+" + CHUNKED,
    "a chunk's size in C's notation": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x" + CHUNKED,
    "a chunk longer than it says": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a bare line feed": HEAD.replace(b"Host: h\r\n", b"Host: h\nX: y\r\n") + b"Content-Length: 14\r\n\r\n" + BODY,
    "a bare carriage return": HEAD + b"X: a\rContent-Length: 0\r\nContent-Length: 14\r\n\r\n" + BODY,
    "a null": HEAD + b"X: a\x00b\r\nContent-Length: 14\r\n\r\n" + BODY,
    "no host": HEAD.replace(b"Host: h\r\n", b"") + b"Content-Length: 14\r\n\r\n" + BODY,
    "two hosts": HEAD + b"Host: other\r\nContent-Length: 14\r\n\r\n" + BODY,
    "a list of hosts": HEAD.replace(b"Host: h", b"Host: h, other") + b"Content-Length: 14\r\n\r\n" + BODY,
    "a host with a path": HEAD.replace(b"Host: h", b"Host: h/x") + b"Content-Length: 14\r\n\r\n" + BODY,
    "a host with a user": HEAD.replace(b"Host: h", b"Host: u@h") + b"Content-Length: 14\r\n\r\n" + BODY,
    "a host with a wild port": HEAD.replace(b"Host: h", b"Host: h:99999") + b"Content-Length: 14\r\n\r\n" + BODY,
    "a host that is empty": HEAD.replace(b"Host: h", b"Host: ") + b"Content-Length: 14\r\n\r\n" + BODY,
}
TAKEN = {
    "a length": HEAD + b"Content-Length: 14\r\n\r\n" + BODY,
    "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunks in capitals": HEAD + b"transfer-encoding: CHUNKED\r\n\r\n" + CHUNKED,
    "HTTP/1.0 with a length": HEAD.replace(b"1.1\r\nHost: h", b"1.0\r\nConnection: keep-alive")
    + b"Content-Length: 14\r\n\r\n"
    + BODY,
}


async def exchange(gateway: Rig, sent: bytes) -> bytes:
    """All that is answered until the gateway hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(sent)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("following", [b"", NEXT], ids=["alone", "with another behind it"])
async def test_what_has_two_readings_is_refused_and_nothing_after_it_is_read(tmp_path: Path, following: bytes) -> None:
    wrong = {}
    async with rig(tmp_path, tenants=(), gateway_idle_timeout_s=2.0) as gateway:
        gateway_host = f"Host: 127.0.0.1:{gateway.port}".encode()
        hosted = [sent.replace(b"Host: h\r\n", gateway_host + b"\r\n") + following for sent in REFUSED.values()]
        answers = await asyncio.gather(*(exchange(gateway, each) for each in hosted))
        for name, answer in zip(REFUSED, answers, strict=True):
            closes = answer.startswith(b"HTTP/1.0 ") or b"Connection: close" in answer[:600]
            if re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer) != [b"400"] or not closes:
                wrong[name] = answer[:300]
        assert not gateway.core.stored
    assert not wrong, "\n".join(f"{name}: {answer!r}" for name, answer in wrong.items())


@pytest.mark.asyncio
@pytest.mark.parametrize("name", TAKEN)
async def test_what_has_one_reading_is_taken(tmp_path: Path, name: str) -> None:
    async with rig(tmp_path, tenants=(), gateway_idle_timeout_s=2.0) as gateway:
        own = f"127.0.0.1:{gateway.port}".encode()
        sent = TAKEN[name].replace(b"Host: h", b"Host: " + own)
        sent = sent if b"Host:" in sent else sent.replace(b"Connection", b"Host: " + own + b"\r\nConnection")
        answer = await exchange(gateway, sent)
        assert answer.split(b"\r\n")[0].split()[1] == b"202", answer[:300]
