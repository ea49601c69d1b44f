"""A simulated disk with core's event log on it: what was acknowledged survives a crash, what was not may or may not."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.domain.events import Recorded
from core.domain.projection import Rows
from core.domain.provenance import LogNote, Provenance
from core.domain.records import KeyRow, PromptRow, Transaction
from core.errors import LogBroken
from core.ports import Deletion, Ended
from tests.fake_log import FakeLog
from tests.simulation.checker import Checker
from tests.simulation.net import Net
from tests.simulation.world import World

_SYNC_S = 0.004
_READ_S = 0.001


@dataclass(slots=True, eq=False)
class _Commit:
    transaction: Transaction
    decided_up_ms: float
    done: "asyncio.Future[None]"


class Disk:
    """Outlives every life of core. `broken_once`: the next commit fails, done or not done. `watched`: the checker hears
    of what is written.
    """

    def __init__(self, world: World, net: Net, checker: Checker) -> None:
        self.content = FakeLog()
        self.broken_once = False
        self.watched = True
        self.dice = world.dice("disk")
        self._world = world
        self._net = net
        self._checker = checker
        self._pending: list[_Commit] = []

    def crash(self) -> None:
        """The process that writes dies: what it was writing is there afterwards, or is not."""
        pending, self._pending = self._pending, []
        for commit in pending:
            refused = self.content.full or self.content.held
            if self.dice.random() < 0.5 and not refused:
                self._write(commit)
                self._world.faults["unacknowledged_kept"] += 1
            else:
                self._world.faults["unacknowledged_lost"] += 1

    async def append(self, transaction: Transaction) -> None:
        """Durable when it returns."""
        self._world.reach("log.append")
        commit = _Commit(transaction, self._checker.uptime_ms(), self._world.loop.create_future())
        self._pending.append(commit)
        self._net.later(self.dice.expovariate(1 / _SYNC_S), lambda: self._finish(commit))
        await commit.done

    async def save_running_ms(self, running_ms: int) -> None:
        """Small enough to be done at once."""
        await self.content.save_running_ms(running_ms)

    def excused(self, error: BaseException | None) -> bool:
        """Whether core may end so: it stops at a broken log, which was broken on purpose."""
        if isinstance(error, BaseExceptionGroup):
            return all(self.excused(each) for each in error.exceptions)
        return isinstance(error, LogBroken) and "simulated" in str(error)

    def _finish(self, commit: _Commit) -> None:
        if commit not in self._pending:
            return  # the process died
        self._pending.remove(commit)
        try:
            if self.broken_once:
                self.broken_once = False
                self._world.faults["log_broken"] += 1
                if self.dice.random() < 0.5:
                    self._write(commit)
                raise LogBroken("simulated: EIO")
            self._write(commit)
        except Exception as error:  # noqa: BLE001  (the log's answer)
            if not commit.done.done():
                commit.done.set_exception(error)
        else:
            if not commit.done.done():
                commit.done.set_result(None)

    def _write(self, commit: _Commit) -> None:
        before = len(self.content.events)
        try:
            _now(self.content.append(commit.transaction))
        except Exception as error:
            if self.content.full or self.content.held:
                self._world.faults["log_full" if self.content.full else "log_busy"] += 1
            self._world.note(f"append refused: {error!r}")
            raise
        events = [event for event, _ in self.content.events[before:]]
        if self.watched:
            self._checker.appended(events, commit.transaction.rows, decided_up_ms=commit.decided_up_ms)


class SimLog:
    """One life's view of the disk: core's `Log`."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.running_ms = disk.content.running_ms
        self.began_empty = disk.content.began_empty

    async def append(self, transaction: Transaction) -> None:
        await self._disk.append(transaction)

    async def save_running_ms(self, running_ms: int) -> None:
        await self._disk.save_running_ms(running_ms)

    @property
    def note(self) -> LogNote:
        return self._disk.content.note

    async def chain_at(self, position: int) -> bytes | None:
        await self._read()
        return await self._disk.content.chain_at(position)

    async def noted(self, of: Provenance) -> None:
        await self._disk.content.noted(of)

    async def stream(self, generation_id: str) -> Sequence[Recorded]:
        await self._read()
        return await self._disk.content.stream(generation_id)

    async def open_streams(self) -> AsyncIterator[Sequence[Recorded]]:
        async for stream in self._disk.content.open_streams():
            await self._read()
            yield stream

    async def known(self, generation_ids: Sequence[str]) -> Collection[str]:
        await self._read()
        return await self._disk.content.known(generation_ids)

    async def rows(self, generation_ids: Sequence[str], *, asker: str = "") -> Mapping[str, Rows]:
        await self._read()
        return await self._disk.content.rows(generation_ids, asker=asker)

    async def page(
        self, tenant: str, *, before: int, limit: int, status: int, looks: int
    ) -> tuple[Sequence[Rows], int]:
        await self._read()
        return await self._disk.content.page(tenant, before=before, limit=limit, status=status, looks=looks)

    async def prompts(self, generation_ids: Sequence[str]) -> Mapping[str, PromptRow]:
        await self._read()
        return await self._disk.content.prompts(generation_ids)

    async def keys(self, wanted: Sequence[tuple[str, str]], running_ms: int) -> Mapping[tuple[str, str], KeyRow]:
        await self._read()
        return await self._disk.content.keys(wanted, running_ms)

    async def write_deletions(self, put: Sequence[Deletion], done: Sequence[str] = ()) -> None:
        await asyncio.sleep(self._disk.dice.expovariate(1 / _SYNC_S))
        await self._disk.content.write_deletions(put, done)

    async def deletions(self, running_ms: int, limit: int) -> Sequence[Deletion]:
        await self._read()
        return await self._disk.content.deletions(running_ms, limit)

    async def events_of(self, generation_id: str) -> Sequence[Recorded]:
        return await self.stream(generation_id)

    async def ended(self, *, after: int, until_running_ms: int, window: int) -> tuple[Sequence[Ended], int]:
        await self._read()
        return await self._disk.content.ended(after=after, until_running_ms=until_running_ms, window=window)

    async def not_erased(self, generation_ids: Sequence[str]) -> Sequence[str]:
        await self._read()
        return await self._disk.content.not_erased(generation_ids)

    async def _read(self) -> None:
        await asyncio.sleep(self._disk.dice.expovariate(1 / _READ_S))


def _now(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to its end what never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")
