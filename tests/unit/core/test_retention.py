"""Finished generations are erased after their tenant's time: on the wall's clock and on core's own."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain import events as e
from core.erasure import retention_file
from core.erasure.retention import DAY_MS, Keep, due
from core.erasure.retention_file import BadFile
from core.ports import Ended
from tests import virtual_time
from tests.eventually import eventually
from tests.unit.core.rig import World, item
from tests.unit.core.test_erasing import made

DAY_S = DAY_MS / 1_000


def ended(*, at_ms: int = 0, running_ms: int = 0, tenant: str = "ann") -> Ended:
    return Ended(position=1, generation_id="g", tenant=tenant, finished_at_ms=at_ms, finished_running_ms=running_ms)


@given(
    st.floats(0, 100), st.integers(0, 10**11), st.integers(0, 10**11), st.integers(0, 10**11), st.integers(0, 10**11)
)
def test_it_is_due_only_when_both_clocks_say_so(days: float, at: int, ran: int, at_now: int, ran_now: int) -> None:
    keep = Keep(days=days)
    kept = int(days * DAY_MS)
    found = due([ended(at_ms=at, running_ms=ran)], keep, at_ms=at_now, running_ms=ran_now)
    assert bool(found) == bool(kept and at_now - at >= kept and ran_now - ran >= kept)


def test_a_tenant_with_days_of_its_own_has_no_others() -> None:
    keep = Keep(days=10, tenants={"short": 1, "kept": 0})
    found = [ended(tenant=tenant) for tenant in ("short", "kept", "ann")]
    for days, expected in ((1, 1), (10, 2), (10_000, 2)):
        assert len(due(found, keep, at_ms=days * DAY_MS, running_ms=days * DAY_MS)) == expected
    assert keep.shortest_ms == DAY_MS
    assert Keep().shortest_ms == Keep(tenants={"kept": 0}).shortest_ms == 0


def erased(world: World) -> list[str]:
    events = [each for each, _ in world.log.events if isinstance(each.event, e.GenerationErased)]
    assert all(each.event == e.GenerationErased(cause=e.Cause.RETENTION) for each in events)
    return [each.generation_id for each in events]


def test_what_has_been_kept_long_enough_goes_and_the_rest_stays() -> None:
    async def main() -> None:
        world = World()
        keep = Keep(days=2, tenants={"bob": 1, "eve": 0})
        async with world.core(keep=keep) as core:
            await made(world, core, "ann1")
            await core.service.submit([item(f"{tenant}1", tenant=tenant) for tenant in ("bob", "eve")])
            for tenant in ("bob", "eve"):
                await core.service.cancel(tenant, f"{tenant}1")
            await core.service.submit([item("open")])
            await asyncio.sleep(0.9 * DAY_S)
            assert erased(world) == []
            await asyncio.sleep(0.3 * DAY_S)
            assert erased(world) == ["bob1"]
        async with world.core(keep=keep):
            await asyncio.sleep(0.6 * DAY_S)
            assert erased(world) == ["bob1"]
            await eventually(lambda: erased(world) == ["bob1", "ann1"], 0.4 * DAY_S, every_s=600)
            await asyncio.sleep(3 * DAY_S)
            assert erased(world) == ["bob1", "ann1"]
            assert world.erasures.ids == ["bob1", "ann1"]
            assert "ann1" not in world.log._prompts

    virtual_time.run(main())


def test_neither_a_step_of_the_clock_nor_an_outage_erases_anything() -> None:
    async def main() -> None:
        world = World()
        async with world.core(keep=Keep(days=1)) as core:
            await made(world, core, "g")
        await asyncio.sleep(5 * DAY_S)  # the wall's clock goes on while core is away
        async with world.core(keep=Keep(days=1)):
            await asyncio.sleep(0.9 * DAY_S)
            assert erased(world) == []
            await eventually(lambda: erased(world) == ["g"], 0.3 * DAY_S, every_s=600)

    virtual_time.run(main())


def test_many_go_in_small_batches() -> None:
    async def main() -> None:
        world = World()
        async with world.core(keep=Keep(days=1)) as core:
            ids = [f"g{number}" for number in range(100)]
            await core.service.submit([item(each) for each in ids])
            for each in ids:
                await core.service.cancel("ann", each)
            await eventually(lambda: len(erased(world)) > 0, 1.1 * DAY_S, every_s=0.5)
            assert len(erased(world)) <= 20
            await eventually(lambda: len(erased(world)) == 100, 10)

    virtual_time.run(main())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tenants]\nacme = -1", "says acme = -1: days must be a number from 0"),
        ("[tenants]\nacme = 'x'", "says acme = 'x'"),
        ("[tenants]\nacme = true", "says acme = True"),
        ("[tenants]\nacme = nan", "says acme = nan"),
        ("[tenants]\nacme = 1e9", "says acme = 1000000000.0"),
        ("[tenants]\n'a b' = 1", "names 'a b', which cannot be a tenant"),
        ("[tenant]\nacme = 1", "has 'tenant': it may hold the table [tenants]"),
        ("tenants = 3", "has no table [tenants]"),
        ("[tenants\n", "is no TOML"),
    ],
)
def test_a_bad_file_is_told_in_one_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "retention.toml"
    path.write_text(text)
    with pytest.raises(BadFile) as told:
        retention_file.read(path)
    line = str(told.value)
    assert line.startswith(f"DARKROOM_CORE_RETENTION_FILE: {path} ")
    assert said in line
    assert "\n" not in line


def test_a_file_that_is_not_there_is_told_too_and_a_good_one_is_taken(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="cannot be read"):
        retention_file.read(tmp_path / "nothing.toml")
    path = tmp_path / "retention.toml"
    path.write_text("[tenants]\nacme = 30\n'studio-7' = 0.5\nkept = 0\n")
    assert retention_file.read(path) == {"acme": 30, "studio-7": 0.5, "kept": 0}
    path.write_text("")
    assert retention_file.read(path) == {}


def test_the_example_of_the_runbook_is_a_good_file(tmp_path: Path) -> None:
    runbook = (Path(__file__).parents[3] / "docs" / "runbook.md").read_text("utf-8")
    path = tmp_path / "retention.toml"
    path.write_text(runbook.split("```toml\n[tenants]")[1].join(("[tenants]", "")).split("```")[0], "utf-8")
    assert retention_file.read(path) == {"acme": 30, "studio-7": 0}
