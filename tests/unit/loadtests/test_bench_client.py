"""The load generator of `bench submit` against small servers, good and bad."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

import pytest

from loadtests.bench.client import FIRST_NUMBER, Broken, Round, Target, load

BODY = b'{"seed": ##########}'


@asynccontextmanager
async def server(answer: Callable[[bytes], list[bytes]]) -> AsyncIterator[int]:
    """A loopback server that gives `answer(body)`, written piece by piece, to each request; yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                for piece in answer(await reader.readexactly(len(BODY))):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def run(port: int, connections: int = 4) -> Round:
    target = Target(
        host="127.0.0.1",
        port=port,
        path="/",
        body=BODY,
        keys=["a", "b"],
        status=202,
        unique=re.compile(rb'"seed": ([0-9]{10})'),
    )
    return await load(target, connections=connections, warm_up_s=0.05, seconds=0.2, numbers=count(FIRST_NUMBER))


def accepted(body: bytes) -> bytes:
    return b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.asyncio
async def test_every_answer_is_counted_once_and_every_body_was_unique() -> None:
    seen: list[bytes] = []

    def answer(body: bytes) -> list[bytes]:
        seen.append(body)
        return [accepted(body)]

    async with server(answer) as port:
        done = await run(port)
    assert len(set(seen)) == len(seen) == len(done.unique) == len(set(done.unique))
    assert 0 < len(done.latencies_ms) < len(done.unique)  # the warm-up is not measured
    assert done.per_s == pytest.approx(len(done.latencies_ms) / 0.2, rel=0.2)


@pytest.mark.asyncio
async def test_an_answer_in_pieces_is_one_answer() -> None:
    async with server(lambda body: [accepted(body)[:30], accepted(body)[30:55], accepted(body)[55:]]) as port:
        done = await run(port, connections=1)
    assert len(done.unique) == len(set(done.unique)) > 0


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "wrong",
    [
        b'HTTP/1.1 500 Oops\r\nContent-Length: 20\r\n\r\n{"seed": 1234567890}',
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=["status", "no id"],
)
async def test_a_wrong_answer_ends_the_run(wrong: bytes) -> None:
    async with server(lambda _: [wrong]) as port:
        with pytest.raises(Broken, match="unexpected answer"):
            await run(port)


@pytest.mark.asyncio
async def test_a_lost_connection_ends_the_run() -> None:
    def answer(_: bytes) -> list[bytes]:
        raise ConnectionError

    async with server(answer) as port:
        with pytest.raises(Broken, match="connection lost"):
            await run(port)
