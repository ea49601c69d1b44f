"""A real core alone on a log of its own, and a client that remembers what it was told. Queues and temporary bucket are
out of reach; the public one takes the note of the log, without which no log is begun.
"""

import asyncio
import hashlib
import http.client
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpclib import GRPCError, Status
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.exceptions import ProtocolError, StreamTerminatedError

from core.log.connection import connect_read_only
from core.log.offline.verify import check
from infra import rpc
from infra.ids import new_id
from schema import fast, pb
from tests.emulators import aws_environment, clean_environment
from tests.eventually import Hopeless, until
from tests.process import Process, free_port, module
from tests.storage import note_store

TENANT = "ann"
LOST = (OSError, ProtocolError, StreamTerminatedError, AttributeError, TimeoutError)
"""How a call ends whose answer nobody knows; grpclib 0.4.9 raises AttributeError for a connection lost under it."""


@dataclass(slots=True)
class Told:
    """What clients were told, and what they only asked."""

    accepted: dict[str, float] = field(default_factory=dict)
    """Generation id to the time of the answer."""
    cancelled: dict[str, float] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)
    """Asked and not answered; their key is their id."""
    refused: set[str] = field(default_factory=set)
    """Answered that nothing was written."""


class CoreAlone:
    """`argv` is the command; the default is the production one."""

    def __init__(self, folder: Path, argv: Sequence[str] = (), **env: str) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self.data = folder / "data"
        self.log_file = self.data / "core" / "log.sqlite3"
        self.told = Told()
        settings = aws_environment(note_store.url(folder)) | {
            "DARKROOM_DATA_DIR": str(self.data),
            "DARKROOM_CORE_PORT": str(self.port),
            "DARKROOM_CORE_ADMIN_PORT": str(self.admin_port),
            "DARKROOM_LOG_FORMAT": "json",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self.process = Process("core", argv or module("core", "serve"), clean_environment() | settings | env, folder)

    def start(self, prefix: Sequence[str] = (), **env: str) -> None:
        """Start it, `prefix` before its command, and wait until it serves."""
        self.launch(prefix, **env)
        until(self.serves, 40, what=f"core serves\n{self.said()}", every_s=0.02)

    def launch(self, prefix: Sequence[str] = (), **env: str) -> None:
        """Start it and wait for nothing."""
        own = self.process.argv
        self.process.argv = [*prefix, *own]
        try:
            self.process.start(**env)
        finally:
            self.process.argv = own

    def stop_traced(self) -> None:
        """SIGTERM to a core that runs under strace, and a clean end of both."""
        self._signal_traced(signal.SIGTERM)
        code = self.process.exit_code()
        assert code == 0, f"core ended with {code}\n{self.said()}"

    def kill_traced(self) -> None:
        if self.process.alive:
            self._signal_traced(signal.SIGKILL)
            self.process.exit_code()

    def _signal_traced(self, number: signal.Signals) -> None:
        tracer = self.process.pid
        for child in Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split():
            os.kill(int(child), number)

    def serves(self) -> bool:
        if not self.process.alive:
            raise Hopeless(f"core has ended\n{self.said()}")
        return self.get("/healthz")[0] == 200 and self.listens()

    def listens(self) -> bool:
        """Whether its API takes connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def get(self, path: str, timeout_s: float = 5) -> tuple[int, str]:
        """Status and text of the admin port; 0 when nothing answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError as error:
            return 0, str(error)
        finally:
            connection.close()

    def said(self) -> str:
        """The end of its log, without the tracebacks."""
        return "\n".join(line[:400] for line in self.process.tail().splitlines())

    def log_trouble(self) -> bool:
        """Whether readiness complains of the log (it always does of queue and store)."""
        status, text = self.get("/readyz")
        return status == 503 and "log:" in text

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[Channel]:
        channel = rpc.open_channel(f"127.0.0.1:{self.port}", token="")
        try:
            yield channel
        finally:
            channel.close()

    async def submit(self, channel: Channel, *, key: str = "") -> fast.SubmitResult | None:
        """Submit one, by the key of an earlier one or its own. None: refused, or nobody knows."""
        generation_id = new_id("gen")
        asked = key or generation_id
        try:
            reply = await _call(channel, "Submit", fast.SubmitRequest(items=[_item(generation_id, asked)]))
        except GRPCError as error:
            if error.status not in {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED}:
                raise AssertionError(f"core answers {error.status}") from error
            (self.told.refused if error.status is Status.UNAVAILABLE else self.told.doubtful).add(asked)
            return None
        except LOST:
            self.told.doubtful.add(asked)
            return None
        [result] = reply.results
        assert int(result.outcome) in {1, 2}, result
        self.told.accepted[result.generation.generation_id] = time.time()
        return result  # type: ignore[no-any-return]

    async def cancel(self, channel: Channel, generation_id: str) -> None:
        """Cancel one that was accepted; remembered if core says that it is cancelled."""
        try:
            reply = await _call(channel, "Cancel", fast.CancelRequest(tenant=TENANT, generation_id=generation_id))
        except (GRPCError, *LOST):
            return
        if reply.cancelled:
            self.told.cancelled[generation_id] = time.time()

    async def load(self, steps: int) -> bool:
        """Submit one after the other, cancel every third; False once core has gone."""
        async with self.channel() as channel:
            for number in range(steps):
                result = await self.submit(channel)
                if result is not None and number % 3 == 2:
                    await self.cancel(channel, result.generation.generation_id)
                if not self.process.alive or (result is None and not await self._listens()):
                    return False
        return True

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    async def settle_doubts(self) -> None:
        """Ask once more for what nobody answered, by key: what is in the log is answered as it is, and once."""
        there = streams(self.log_file)
        async with self.channel() as channel:
            for key in sorted(self.told.doubtful):
                result = await self.submit(channel, key=key)
                assert result is not None, f"core does not answer\n{self.said()}"
                first = result.generation.generation_id
                assert (first == key) == (key in there), f"{key} in the log: {key in there}; answered {first}"
        self.told.doubtful.clear()

    def check(self) -> None:
        """All that was told is in the log, and the log is whole. Core may run or not."""
        verify(self.log_file, self.told)


def verify(log_file: Path, told: Told, before: float = float("inf")) -> None:
    """What was told before this time is in the log, what was refused is not, and the log is whole."""
    there = streams(log_file)
    lost = {each for each, at in told.accepted.items() if at < before and each not in there}
    assert not lost, f"acknowledged and not in the log: {sorted(lost)[:3]}"
    open_again = {
        each for each, at in told.cancelled.items() if at < before and "generation.cancelled" not in there[each]
    }
    assert not open_again, f"acknowledged as cancelled, and not: {sorted(open_again)[:3]}"
    written = told.refused & set(there)
    assert not written, f"refused and in the log all the same: {sorted(written)[:3]}"
    connection = connect_read_only(log_file)
    try:
        report = check(connection)
    finally:
        connection.close()
    assert not report.problems, report.problems[:5]


def streams(log_file: Path) -> dict[str, list[str]]:
    """The types of events in the log, by generation."""
    found: dict[str, list[str]] = {}
    connection = connect_read_only(log_file)
    try:
        for stream, kind in connection.execute("SELECT stream, type FROM events ORDER BY position"):
            found.setdefault(stream, []).append(kind)
    finally:
        connection.close()
    return found


async def _call(channel: Channel, name: str, request: Any) -> Any:
    method = UnaryUnaryMethod(channel, f"/darkroom.v1.Core/{name}", type(request), getattr(fast, f"{name}Reply"))
    return await method(request, timeout=15)


def _item(generation_id: str, key: str) -> fast.SubmitItem:
    return fast.SubmitItem(
        generation_id=generation_id,
        tenant=TENANT,
        idempotency_key=key,
        body_sha256=hashlib.sha256(b"body").digest(),
        spec=fast.GenerationSpec(
            model="demo",
            width=256,
            height=256,
            num_inference_steps=8,
            guidance_scale=3.5,
            seed=7,
            n=2,
            output_format=pb.OutputFormat(pb.OutputFormat.PNG),
        ),
        prompts=fast.Prompts(prompt="a red circle", negative_prompt="blue"),
    )
