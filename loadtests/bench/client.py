"""A closed-loop HTTP/1.1 load generator that costs little: it shares the core with what it measures.

Each connection sends a request, waits for the whole answer, checks it, and sends the next. Request
bytes are prepared; only a ten-digit number differs, so every body is unique and all have one length.
It knows nothing of darkroom: `Target` says what an accepted answer looks like.
"""

import asyncio
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

FIRST_NUMBER = 1_000_000_000
MAX_ANSWER_BYTES = 64 * 1024
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")


class Broken(RuntimeError):
    """An answer was not as `Target` requires, or a connection was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to send what, and what the answer must be: its status, and a pattern whose first group is unique."""

    host: str
    port: int
    path: str
    body: bytes
    """With `##########` wherever the number of the request goes."""
    keys: Sequence[str]
    """API keys, taken in turn by the connections."""
    status: int
    unique: re.Pattern[bytes]

    def pieces(self, key: str) -> list[bytes]:
        """The request's bytes between the numbers."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(self.body)}\r\n\r\n"
        )
        return (head.encode() + self.body).split(b"#" * 10)


@dataclass(slots=True, kw_only=True)
class Round:
    """What one measured span gave: answers inside the span, and all unique values seen, warm-up included."""

    seconds: float = 0.0
    latencies_ms: "array[float]" = field(default_factory=lambda: array("d"))
    unique: list[bytes] = field(default_factory=list)

    @property
    def per_s(self) -> float:
        """Answers per second of the span."""
        return len(self.latencies_ms) / self.seconds


class _Connection(asyncio.BufferedProtocol):
    """One keep-alive connection with one request in flight."""

    def __init__(self, target: Target, key: str, numbers: Iterator[int], load: "_Load") -> None:
        self._pieces = target.pieces(key)
        self._status = b"HTTP/1.1 %d" % target.status
        self._unique = target.unique
        self._numbers = numbers
        self._load = load
        self._space = bytearray(MAX_ANSWER_BYTES)
        self._view = memoryview(self._space)
        self._held = 0
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        number = b"%010d" % next(self._numbers)
        self._sent_at = self._load.now()
        self._transport.write(number.join(self._pieces))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (asyncio names it)
        return self._view[self._held :]

    def buffer_updated(self, nbytes: int) -> None:
        self._held += nbytes
        head_end = self._space.find(b"\r\n\r\n", 0, self._held)
        length = _LENGTH.search(self._space, 0, head_end) if head_end >= 0 else None
        if length is None or self._held < head_end + 4 + int(length.group(1)):
            if self._held == MAX_ANSWER_BYTES:
                self._load.fail(Broken(f"an answer has more than {MAX_ANSWER_BYTES} bytes"))
            return
        found = self._unique.search(self._space, head_end, self._held)
        if not self._space.startswith(self._status) or found is None:
            text = self._space[: min(self._held, 400)].decode(errors="replace")
            self._load.fail(Broken(f"unexpected answer: {text}"))
            return
        self._held = 0
        if self._load.answered(bytes(found.group(1)), self._sent_at):
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._load.over:
            self._load.fail(Broken(f"connection lost: {exc or 'closed by the server'}"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Load:
    """The clock, the window and the tally that all connections of a round share."""

    def __init__(self, connections: int) -> None:
        loop = asyncio.get_running_loop()
        self.now: Callable[[], float] = loop.time
        self.round = Round()
        self.over = False
        self._from = self._to = float("inf")
        self._stopping = False
        self._busy = connections
        self._done: asyncio.Future[None] = loop.create_future()

    def measure_from_now(self, seconds: float) -> None:
        self._from = self.now()
        self._to = self._from + seconds

    def answered(self, unique: bytes, sent_at: float) -> bool:
        """Count an answer; says whether to send another."""
        now = self.now()
        self.round.unique.append(unique)
        if self._from <= now < self._to:
            self.round.latencies_ms.append((now - sent_at) * 1000)
        if not self._stopping:
            return True
        self._busy -= 1
        if self._busy == 0 and not self._done.done():
            self._done.set_result(None)
        return False

    def fail(self, error: Broken) -> None:
        if not self._done.done():
            self._done.set_exception(error)

    async def wait(self, seconds: float) -> None:
        """Let the load run this long; raises what broke meanwhile."""
        done, _ = await asyncio.wait((self._done,), timeout=seconds)
        for each in done:
            each.result()

    async def finish(self, within_s: float) -> None:
        """Send no more, and wait for what is under way."""
        self._stopping = True
        async with asyncio.timeout(within_s):
            await self._done


async def load(target: Target, *, connections: int, warm_up_s: float, seconds: float, numbers: "count[int]") -> Round:
    """Keep `connections` busy for the warm-up and then for the measured span. Raises Broken for a wrong answer."""
    state = _Load(connections)
    loop = asyncio.get_running_loop()
    made: list[_Connection] = []

    def connect(index: int) -> _Connection:
        made.append(_Connection(target, target.keys[index % len(target.keys)], numbers, state))
        return made[-1]

    try:
        for index in range(connections):
            await loop.create_connection(lambda index=index: connect(index), target.host, target.port)  # type: ignore[misc]
        await state.wait(warm_up_s)
        state.measure_from_now(seconds)
        started = state.now()
        await state.wait(seconds)
        state.round.seconds = min(state.now() - started, seconds)
        await state.finish(within_s=30)
    finally:
        state.over = True
        for each in made:
            each.close()
    return state.round
