"""The wall clock steps by an hour under a core on a real log: in the run, across a restart, across a restore."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from core.assembly import Core
from core.log.connection import connect_read_only
from core.log.offline import cli
from core.log.sqlite_log import SqliteLog
from gateway.bodies.views import body as body_of
from gateway.pictures.link_secrets import drawn_from
from gateway.pictures.signing import Urls
from infra.loops import Loops
from tests.core_events import NOON_MS, dispatched, started
from tests.eventually import eventually
from tests.integration.test_core_offline import BEGUN, story
from tests.unit.core.rig import Worker, World, item, working

HOUR_MS = 3_600_000
URLS = Urls(origin="", tenant="ann", expires_s=2_000_000_000, secret=drawn_from("s" * 32))
START_MS = 1_800_000_000_000


class Stepping:
    """Fakes around a real log, and a wall clock that the test sets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.world = World()
        self.step_ms = 0

    def wall_ms(self) -> int:
        return START_MS + self.step_ms + int(asyncio.get_running_loop().time() * 1000)

    @asynccontextmanager
    async def core(self) -> AsyncIterator[Core]:
        async with SqliteLog(self.path) as log:
            core = Core(replace(self.world.ports(), log=log, wall_ms=self.wall_ms), self.world.tuning)
            await core.load()
            async with Loops() as loops:
                core.start(loops)
                yield core
                loops.stop()

    async def submit(self, core: Core, *ids: str) -> None:
        results = await core.service.submit([item(each) for each in ids])
        assert [int(each.outcome) for each in results] == [1] * len(ids)

    async def body(self, core: Core, generation_id: str, tenant: str = "ann") -> dict[str, Any]:
        """What the gateway makes of core's answer."""
        return body_of(await core.service.get(tenant, generation_id), "", URLS)

    async def succeeded(self, core: Core, *ids: str) -> None:
        async def ended() -> bool:
            return all([(await self.body(core, each))["status"] == "succeeded" for each in ids])

        there: bool = await eventually(ended, 20, what=f"{ids} succeed")
        assert there

    def streams(self) -> dict[str, list[int]]:
        connection = connect_read_only(self.path)
        try:
            found: dict[str, list[int]] = {}
            for stream, at_ms in connection.execute("SELECT stream, at_ms FROM events ORDER BY stream, version"):
                found.setdefault(stream, []).append(at_ms)
            return found
        finally:
            connection.close()

    def check(self, *ids: str) -> None:
        streams = self.streams()
        assert set(streams) == set(ids)
        for stream, times in streams.items():
            assert all(before <= after for before, after in pairwise(times)), (stream, times)


@pytest.fixture
def stepping(tmp_path: Path) -> Stepping:
    return Stepping(tmp_path / "core" / "log.sqlite3")


@pytest.mark.parametrize("steps", [(-HOUR_MS,), (HOUR_MS, 0), (-HOUR_MS, HOUR_MS, -HOUR_MS)], ids=str)
@pytest.mark.asyncio
async def test_steps_in_the_run(stepping: Stepping, steps: tuple[int, ...]) -> None:
    worker = Worker(stepping.world)
    async with stepping.core() as core:
        await stepping.submit(core, "gen_1", "gen_2")
        for step_ms in steps:
            stepping.step_ms = step_ms
            await stepping.submit(core, f"gen_at_{step_ms}_{len(stepping.streams())}")
        async with working(worker):
            ids = sorted(stepping.streams())
            await stepping.succeeded(core, *ids)
        bodies = [await stepping.body(core, each) for each in ids]
    for body in bodies:
        assert body["created_at"] <= body["started_at"] <= body["finished_at"], body
    stepping.check(*ids)


@pytest.mark.asyncio
async def test_a_step_back_while_core_is_away_and_across_a_restore(
    stepping: Stepping, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stepping.core() as core:
        await stepping.submit(core, "gen_1")
    copy = tmp_path / "copy.sqlite3"
    data = ("--data-dir", str(tmp_path))
    assert await asyncio.to_thread(cli.run, ["backup", str(copy), *data]) == 0
    stepping.step_ms = -HOUR_MS
    async with stepping.core() as core, working(Worker(stepping.world)):
        await stepping.succeeded(core, "gen_1")
        body = await stepping.body(core, "gen_1")
        assert body["created_at"] <= body["started_at"] <= body["finished_at"], body
    stepping.check("gen_1")
    assert await asyncio.to_thread(cli.run, ["restore", str(copy), "--replace", *data]) == 0
    stepping.step_ms = -2 * HOUR_MS
    async with stepping.core() as core, working(Worker(stepping.world)):
        await stepping.succeeded(core, "gen_1")
        body = await stepping.body(core, "gen_1")
        assert body["created_at"] <= body["started_at"] <= body["finished_at"], body
    stepping.check("gen_1")
    assert await asyncio.to_thread(cli.run, ["verify", *data]) == 0
    assert "times go back" not in capsys.readouterr().out


@pytest.mark.asyncio
async def test_a_log_with_backward_times_opens_verifies_and_goes_on(
    stepping: Stepping, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an earlier release wrote it."""
    async with SqliteLog(stepping.path) as log:
        whole = story("gen_1", [BEGUN, dispatched(), started()])
        back = [replace(each, at_ms=NOON_MS - number * HOUR_MS) for number, each in enumerate(whole.entries)]
        rows = [replace(each, generation=replace(each.generation, started_at_ms=back[-1].at_ms)) for each in whole.rows]
        await log.append(replace(whole, entries=back, rows=rows))
    data = ("--data-dir", str(tmp_path))
    assert await asyncio.to_thread(cli.run, ["verify", *data]) == 0
    assert "times go back within 1 generations" in capsys.readouterr().out
    assert await asyncio.to_thread(cli.run, ["backup", str(tmp_path / "copy"), *data]) == 0
    stepping.step_ms = 1 - START_MS
    async with stepping.core() as core:
        body = await stepping.body(core, "gen_1", tenant="acme")
        assert body["created_at"] <= body["started_at"], body
        await core.service.cancel("acme", "gen_1")
    times = stepping.streams()["gen_1"]
    assert times[-1] == max(times)
