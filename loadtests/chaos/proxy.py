"""A TCP proxy between the services and the emulator of queue and store that injects faults while `weather` is set.

It forwards bytes. Of HTTP it recognizes only where a request begins: a chunk that starts with a method, on a connection
that is new or whose last request has been answered. Our clients do not pipeline requests.
"""

import asyncio
import random
import re
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field

from loadtests.chaos.plan import Weather
from loadtests.stack import HOST

_BEGINS = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) /")
_CHUNK = 256 * 1024
_LAST_WORDS_S = 2.0
_SLOW_DOWN = (
    b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message>"
    b"<RequestId>0</RequestId></Error>"
)
_UNAVAILABLE = b'{"__type":"com.amazonaws.sqs#ServiceUnavailable","message":"Try again."}'


@dataclass(slots=True, eq=False)
class _Pair:
    """One connection of a service and its counterpart at the emulator."""

    client: asyncio.StreamWriter
    upstream: asyncio.StreamWriter
    fate: Weather | None = None
    answered: bool = True
    continued: bool = False

    def cut(self) -> None:
        """End both at once; the service sees a reset."""
        for writer in (self.client, self.upstream):
            reset(writer)


@dataclass(slots=True, eq=False)
class FaultProxy:
    """`weather` applies to requests that begin while it is set, each with probability `chance`.

    `counts` has the requests hit, by kind; for `down`, the connections.
    """

    port: int
    upstream_port: int
    rng: random.Random
    weather: Weather | None = None
    chance: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    _pairs: set[_Pair] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._connection, HOST, self.port, limit=_CHUNK)

    async def close(self) -> None:
        """Cut everything and listen no more."""
        if self._server is not None:
            self._server.close()
            self.cut_all()
            await self._server.wait_closed()

    def cut_all(self) -> None:
        """Reset every connection."""
        for pair in list(self._pairs):
            pair.cut()

    def change(self, weather: Weather | None, chance: float = 0.0) -> None:
        """Sets the fault for new requests, or none. `down` also resets the open connections."""
        self.weather, self.chance = weather, chance
        if weather == "down":
            self.counts["down"] += len(self._pairs)
            self.cut_all()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.weather == "down":
            self.counts["down"] += 1
            return reset(writer)
        try:
            above, upstream = await asyncio.open_connection(HOST, self.upstream_port, limit=_CHUNK)
        except OSError:
            return reset(writer)
        pair = _Pair(writer, upstream)
        self._pairs.add(pair)
        down = asyncio.ensure_future(self._downwards(pair, above))
        try:
            await self._upwards(pair, reader)
        except (OSError, asyncio.IncompleteReadError):
            pair.cut()
        finally:
            down.cancel()
            self._pairs.discard(pair)
            for each in (writer, upstream):
                each.close()
        return None

    async def _upwards(self, pair: _Pair, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(_CHUNK):
            if pair.answered and _BEGINS.match(chunk):
                pair.fate, pair.answered = self._draw(), False
                match pair.fate:
                    case "refused":
                        return await _refuse(pair, reader, chunk)
                    case "reset":
                        return pair.cut()
                    case "half":
                        pair.upstream.write(chunk[: len(chunk) // 2])
                        await pair.upstream.drain()
                        return pair.cut()
                    case "slow":
                        await asyncio.sleep(self.rng.uniform(0.1, 2.5))
                    case _:
                        pass
            pair.upstream.write(chunk)
            await pair.upstream.drain()
        return None

    async def _downwards(self, pair: _Pair, above: asyncio.StreamReader) -> None:
        try:
            while chunk := await above.read(_CHUNK):
                if chunk.startswith(b"HTTP/1.1 100"):
                    pair.client.write(chunk)
                    continue
                pair.answered = True
                if pair.fate in {"lost", "torn"}:
                    pair.client.write(chunk[: len(chunk) // 2] if pair.fate == "torn" else b"")
                    break
                pair.client.write(chunk)
                await pair.client.drain()
        except OSError:
            pass
        pair.client.close()
        pair.upstream.close()

    def _draw(self) -> Weather | None:
        if self.weather in {None, "down", "purge"} or self.rng.random() >= self.chance:
            return None
        assert self.weather is not None
        self.counts[self.weather] += 1
        return self.weather


async def _refuse(pair: _Pair, reader: asyncio.StreamReader, head: bytes) -> None:
    """Answers 503 in the format of the queue or the store, then closes the connection."""
    queue = b"x-amz-target" in head[:4096].lower()
    kind, body = (b"application/x-amz-json-1.0", _UNAVAILABLE) if queue else (b"application/xml", _SLOW_DOWN)
    body = b"" if head.startswith(b"HEAD") else body
    pair.client.write(
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
        % (kind, len(body), body)
    )
    pair.upstream.close()
    await pair.client.drain()
    pair.client.write_eof()
    try:  # with unread data at close, the kernel sends a reset, and the client may miss the 503
        async with asyncio.timeout(_LAST_WORDS_S):
            while await reader.read(_CHUNK):
                pass
    except TimeoutError:
        pass


def reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side sees RST."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
