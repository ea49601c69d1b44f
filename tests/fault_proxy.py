"""A TCP proxy on loopback that cuts, delays or swallows the bytes of connections on demand.

    with TcpProxy(seed=7) as proxy:
        proxy.target = core_port
        ... point a client at proxy.port ...
        with proxy.faulty(delay_s=0.2, reset_share=0.3):
            ...

It runs in a thread with an event loop of its own, so that tests may be written without one. `tests/fault_cloud.py`
is its sibling that understands SQS and S3.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Self

from tests.process import free_port

_FRAME_HEADER = 9
_DATA = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What is done to the bytes of every connection from now on."""

    delay_s: float = 0.0
    """Before each piece of an answer is handed on."""
    reset_share: float = 0.0
    """This share of the pieces of answers is lost, and the connection with it."""
    reset_after: int = -1
    """A connection is reset once so many bytes of answers have gone through it; -1: never."""
    blackhole: bool = False
    """Nothing goes through in either direction, while connections stay open."""
    refuse: bool = False
    """New connections are reset at once."""
    cut_answer_to: bytes = b""
    """HTTP/2: in mid-answer to a request that holds these bytes the connection is reset."""


class InThread:
    """An event loop in a thread; `start` runs in it and returns what ends it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._stop: Callable[[], Awaitable[None]] | None = None

    async def start(self) -> Callable[[], Awaitable[None]]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        self._stop = asyncio.run_coroutine_threadsafe(self.start(), self.loop).result(20)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stop is not None
        asyncio.run_coroutine_threadsafe(self._end(self._stop), self.loop).result(20)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(20)
        self.loop.close()

    async def _end(self, stop: Callable[[], Awaitable[None]]) -> None:
        await stop()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next round

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


class TcpProxy(InThread):
    """Stands at `port` before the loopback port `target`. `faults` may be replaced at any time."""

    def __init__(self, target: int = 0, *, seed: int = 0) -> None:
        super().__init__()
        self.port = free_port()
        self.target = target
        self.faults = Faults()
        self.resets = 0
        """Resets by a fault so far; `cut` counts both ends of a connection."""
        self.connections = 0
        self._draw = random.Random(seed)
        self._open: set[asyncio.StreamWriter] = set()

    @contextmanager
    def faulty(self, **faults: object) -> Iterator[None]:
        """These faults while inside, none afterwards; connections caught in a black hole are reset at the end."""
        self.faults = replace(Faults(), **faults)  # type: ignore[arg-type]
        try:
            yield
        finally:
            holes, self.faults = self.faults.blackhole, Faults()
            if holes:
                self.cut()

    def cut(self) -> None:
        """Reset every connection now."""
        self.loop.call_soon_threadsafe(self._reset_all)

    async def start(self) -> Callable[[], Awaitable[None]]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

        async def stop() -> None:
            server.close()
            self._reset_all()
            await server.wait_closed()

        return stop

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.faults.refuse:
            reset(writer)
            return
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            reset(writer)
            return
        link = _Link(self, writer, upstream_writer)
        self._open |= {writer, upstream_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(link.requests(reader), name="requests")
                group.create_task(link.answers(upstream_reader), name="answers")
        except* (OSError, _Spoiled):
            pass
        finally:
            for each in (writer, upstream_writer):
                reset(each)
                self._open.discard(each)

    def _reset_all(self) -> None:
        for writer in list(self._open):
            self.resets += 1
            reset(writer)

    def lot(self, share: float) -> bool:
        """Draws whether a fault of this probability happens."""
        return self._draw.random() < share


class _Spoiled(Exception):
    """The connection is to be reset."""


class _Link:
    """One client's connection and ours to the target."""

    def __init__(self, proxy: TcpProxy, client: asyncio.StreamWriter, target: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._target = target
        self._answered = 0
        self._marked = False

    async def requests(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65_536):
            await self._hold()
            marker = self._proxy.faults.cut_answer_to
            if marker and marker in data:
                self._marked = True
            self._target.write(data)
            await self._target.drain()
        raise _Spoiled

    async def answers(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65_536):
            await self._hold()
            faults = self._proxy.faults
            if faults.delay_s:
                await asyncio.sleep(faults.delay_s)
            passed = self._passed(data)
            self._client.write(data[:passed])
            await self._client.drain()
            self._answered += passed
            if passed < len(data):
                self._proxy.resets += 1
                raise _Spoiled
        raise _Spoiled

    def _passed(self, data: bytes) -> int:
        """How many of these bytes the client still gets."""
        faults = self._proxy.faults
        if faults.reset_share and self._proxy.lot(faults.reset_share):
            return 0
        if faults.reset_after >= 0:
            return min(len(data), max(0, faults.reset_after - self._answered))
        if self._marked and faults.cut_answer_to:
            return middle_of_answer(data)
        return len(data)

    async def _hold(self) -> None:
        while self._proxy.faults.blackhole:  # noqa: ASYNC110  (the test replaces `faults` from another thread)
            await asyncio.sleep(0.02)


def middle_of_answer(data: bytes) -> int:
    """Where to cut HTTP/2 frames in the middle of the first DATA frame that is no mere health check; else their end."""
    at = 0
    while at + _FRAME_HEADER <= len(data):
        length = int.from_bytes(data[at : at + 3], "big")
        if data[at + 3] == _DATA and length > 16:
            return at + _FRAME_HEADER + length // 2
        at += _FRAME_HEADER + length
    return len(data)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, not FIN."""
    with suppress(OSError):
        sock = writer.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
