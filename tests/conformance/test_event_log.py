"""What every event log with its projection must do: the real one on SQLite, and the fake that tests use."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio

from core.domain import events as e
from core.domain.events import Event
from core.domain.projection import project
from core.domain.provenance import Claim, Provenance
from core.domain.records import Transaction
from core.errors import VersionConflict
from core.log.sqlite_log import SqliteLog
from core.ports import Deletion, Deletions, EventLog, Lineage, Projection, Retained, Upkeep, WriterReads
from schema import limits
from schema.validate import Invalid
from tests.core_events import (
    attempt_failed,
    dispatched,
    entries,
    key_row,
    prompt_row,
    published,
    rendered,
    requested,
    spec,
    started,
    state_after,
    submission,
    transaction,
)
from tests.fake_log import FakeLog


class Log(EventLog, WriterReads, Upkeep, Projection, Lineage, Deletions, Retained, Protocol):
    """All seven ports, as one adapter has them."""


@pytest_asyncio.fixture(params=["sqlite", "fake"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    if request.param == "fake":
        yield FakeLog()
        return
    async with SqliteLog(tmp_path / "core" / "log.sqlite3") as log:
        yield log


WHOLE = (
    requested(spec=spec(n=1)),
    dispatched(),
    started(),
    attempt_failed(),
    dispatched(dispatch=2),
    started(attempt_id="att_2", dispatch=2),
    rendered(attempt_id="att_2", generation_id="gen_1"),
    published(),
    e.GenerationSucceeded(),
    e.GenerationErased(),
)


@pytest.mark.asyncio
async def test_a_stream_comes_back_as_it_was_written(log: Log) -> None:
    await log.append(transaction("gen_1", WHOLE[:3]))
    await log.append(transaction("gen_2", [requested()]))
    await log.append(transaction("gen_1", WHOLE, after=3))
    stream = await log.stream("gen_1")
    assert tuple(each.event for each in stream) == WHOLE
    assert [each.version for each in stream] == list(range(1, 11))
    assert [each.position for each in stream] == [1, 2, 3, *range(5, 12)]
    assert {each.generation_id for each in stream} == {"gen_1"}
    assert (stream[1].at_ms, stream[1].running_ms) == (transaction("gen_1", WHOLE).entries[1].at_ms, 1_000)
    assert await log.stream("gen_0") == []
    assert set(await log.known(["gen_0", "gen_2", "gen_1"])) == {"gen_1", "gen_2"}


@pytest.mark.asyncio
async def test_it_tells_which_history_it_is_and_how_far_it_has_got(log: Log) -> None:
    begun = log.note
    assert (begun.position, begun.chain, begun.of.epoch, begun.of.claim) == (0, bytes(32), 1, Claim.NEW)
    await log.append(transaction("gen_1", WHOLE[:3]))
    assert (log.note.of, log.note.position) == (begun.of, 3)
    assert await log.chain_at(0) == bytes(32)
    chains = [await log.chain_at(position) for position in (1, 2, 3)]
    assert len({*chains, bytes(32)}) == 4
    assert log.note.chain == chains[-1]
    assert await log.chain_at(4) is None
    later = Provenance(log_id=begun.of.log_id, epoch=2)
    await log.noted(later)
    assert log.note.of == later
    await log.append(transaction("gen_2", [requested()]))
    assert (log.note.of, log.note.position, await log.chain_at(2)) == (later, 4, chains[1])


@pytest.mark.asyncio
async def test_a_version_is_taken_once(log: Log) -> None:
    await log.append(transaction("gen_1", WHOLE[:2]))
    other = replace(transaction("gen_2", [requested()]), entries=transaction("gen_1", WHOLE[:2], after=1).entries)
    with pytest.raises(VersionConflict):
        await log.append(other)
    assert len(await log.stream("gen_1")) == 2
    assert await log.rows(["gen_2"]) == {}


@pytest.mark.asyncio
async def test_a_generation_ends_once(log: Log) -> None:
    events: list[Event] = [requested(), e.GenerationCancelled()]
    await log.append(transaction("gen_1", events))
    with pytest.raises(VersionConflict):
        await log.append(transaction("gen_1", [*events, e.GenerationExpired()], after=2))
    assert len(await log.stream("gen_1")) == 2
    await log.append(transaction("gen_1", [*events, e.GenerationErased()], after=2))
    assert (await log.rows(["gen_1"]))["gen_1"].generation.erased == 1


@pytest.mark.asyncio
async def test_a_refused_transaction_leaves_nothing(log: Log) -> None:
    await log.append(submission("gen_1", key="first"))
    good = submission("gen_2", key="second")
    both = Transaction(
        entries=[*good.entries, *transaction("gen_1", [requested()]).entries],
        rows=good.rows,
        prompts=good.prompts,
        keys=good.keys,
    )
    with pytest.raises(VersionConflict):
        await log.append(both)
    assert await log.stream("gen_2") == []
    assert await log.rows(["gen_2"]) == {}
    assert await log.prompts(["gen_2"]) == {}
    assert await log.keys([("acme", "second")], 0) == {}
    await log.append(good)
    assert len(await log.stream("gen_2")) == 1


@pytest.mark.asyncio
async def test_an_event_that_nobody_could_read_is_not_written(log: Log) -> None:
    with pytest.raises(Invalid, match="width"):
        await log.append(transaction("gen_1", [requested(spec=spec(width=257))]))
    assert await log.stream("gen_1") == []


@pytest.mark.asyncio
async def test_open_streams_are_those_without_an_end_oldest_first(log: Log) -> None:
    for number in range(450):
        await log.append(transaction(f"gen_{449 - number:03}", [requested()]))
    for number in range(0, 450, 3):
        events: list[Event] = [requested(), e.GenerationCancelled()]
        await log.append(transaction(f"gen_{number:03}", events, after=1))
    await log.append(transaction("gen_001", [requested(), dispatched(), started()], after=1))
    found = [stream async for stream in log.open_streams()]
    expected = [f"gen_{number:03}" for number in range(449, -1, -1) if number % 3]
    assert [stream[0].generation_id for stream in found] == expected
    assert [event.event for event in found[-1]] == [requested(), dispatched(), started()]


@pytest.mark.asyncio
async def test_rows_are_those_of_the_last_append(log: Log) -> None:
    for upto in range(1, len(WHOLE) + 1):
        await log.append(transaction("gen_1", WHOLE[:upto], after=upto - 1))
        assert await log.rows(["gen_1", "gen_0"]) == {"gen_1": project(state_after("gen_1", WHOLE[:upto]))}


@pytest.mark.asyncio
async def test_rows_of_two_generations_keep_their_images_apart(log: Log) -> None:
    await log.append(submission("gen_1", n=limits.MAX_IMAGES))
    await log.append(submission("gen_2", n=1))
    rows = await log.rows(["gen_2", "gen_1"])
    assert [image.index for image in rows["gen_1"].images] == list(range(limits.MAX_IMAGES))
    assert [image.index for image in rows["gen_2"].images] == [0]


@pytest.mark.asyncio
async def test_a_list_is_paged_newest_first_within_its_tenant(log: Log) -> None:
    for number in range(7):
        await log.append(submission(f"gen_{number}", tenant="acme" if number != 3 else "other"))
    await log.append(transaction("gen_4", [requested(), e.GenerationCancelled()], after=1))
    seen, before = [], 0
    while True:
        rows, before = await log.page("acme", before=before, limit=2, status=0, looks=100)
        assert len(rows) == 2
        seen += [row.generation.id for row in rows]
        if not before:
            break
    assert seen == ["gen_6", "gen_5", "gen_4", "gen_2", "gen_1", "gen_0"]
    cancelled, more = await log.page("acme", before=0, limit=2, status=5, looks=100)
    assert [row.generation.id for row in cancelled] == ["gen_4"]
    assert more == 0
    assert await log.page("nobody", before=0, limit=2, status=0, looks=100) == ([], 0)


@pytest.mark.parametrize(
    ("status", "looks", "pages"),
    [
        (5, 3, [[], ["gen_4"], ["gen_0"]]),  # nothing among the newest three of acme, and yet there is more
        (5, 4, [["gen_4"], ["gen_0"]]),
        (5, 8, [["gen_4", "gen_0"]]),
        (5, 1, [[], [], [], ["gen_4"], [], [], [], ["gen_0"]]),
        (2, 3, [[], [], []]),
        (1, 3, [["gen_8", "gen_7"], ["gen_6", "gen_3"], ["gen_2", "gen_1"]]),
        (0, 1, [[f"gen_{number}"] for number in (8, 7, 6, 4, 3, 2, 1, 0)]),
    ],
)
@pytest.mark.asyncio
async def test_a_page_looks_at_so_many_and_no_more_and_tells_where_to_go_on(
    log: Log, status: int, looks: int, pages: list[list[str]]
) -> None:
    for number in range(9):
        await log.append(submission(f"gen_{number}", tenant="acme" if number != 5 else "other"))
    for number in (0, 4):
        await log.append(transaction(f"gen_{number}", [requested(), e.GenerationCancelled()], after=1))
    seen, before, more = [], 0, True
    while more:
        rows, before = await log.page("acme", before=before, limit=2, status=status, looks=looks)
        seen.append([row.generation.id for row in rows])
        more = before != 0
    assert seen == pages


@pytest.mark.asyncio
async def test_an_erased_prompt_is_gone(log: Log) -> None:
    await log.append(submission("gen_1"))
    await log.append(submission("gen_2"))
    assert await log.prompts(["gen_1", "gen_0"]) == {"gen_1": prompt_row("gen_1")}
    events: list[Event] = [requested(), e.GenerationExpired(), e.GenerationErased()]
    await log.append(transaction("gen_1", events, after=1, erased=["gen_1"]))
    assert set(await log.prompts(["gen_1", "gen_2"])) == {"gen_2"}


@pytest.mark.asyncio
async def test_a_key_holds_until_it_expires_and_can_then_be_used_again(log: Log) -> None:
    await log.append(submission("gen_1", key="k"))
    wanted = [("acme", "k"), ("other", "k"), ("acme", "other")]
    assert await log.keys(wanted, 89_999) == {("acme", "k"): key_row("gen_1", key="k")}
    assert await log.keys(wanted, 90_000) == {}
    with pytest.raises(VersionConflict):
        await log.append(submission("gen_2", key="k"))
    assert await log.stream("gen_2") == []
    later = submission("gen_3", key="k")
    entries = [replace(entry, running_ms=90_000) for entry in later.entries]
    key = key_row("gen_3", key="k", expires=180_000)
    await log.append(replace(later, entries=entries, keys=[key]))
    assert await log.keys(wanted, 90_000) == {("acme", "k"): key}


@pytest.mark.asyncio
async def test_expired_keys_are_swept_with_the_running_time(log: Log) -> None:
    await log.append(submission("gen_1", key="k"))
    await log.save_running_ms(89_999)
    assert await log.keys([("acme", "k")], 0) != {}
    await log.save_running_ms(90_000)
    assert await log.keys([("acme", "k")], 0) == {}


@pytest.mark.asyncio
async def test_deletions_come_with_the_erasure_and_go_when_they_are_done(log: Log) -> None:
    events: list[Event] = [requested(), e.GenerationExpired(), e.GenerationErased(cause=e.Cause.OPERATOR)]
    for name in ("gen_1", "gen_2"):
        await log.append(submission(name))
        assert await log.deletions(2**50, 10) == []
    for name in ("gen_1", "gen_2"):
        await log.append(transaction(name, events, after=1, erased=[name]))
    both = [Deletion(generation_id="gen_1"), Deletion(generation_id="gen_2")]
    assert sorted(await log.deletions(0, 10), key=lambda each: each.generation_id) == both
    assert len(await log.deletions(0, 1)) == 1
    later = Deletion(generation_id="gen_1", due_running_ms=5_000, looks=1)
    await log.write_deletions([later], ["gen_2", "gen_3"])
    assert await log.deletions(4_999, 10) == []
    assert await log.deletions(5_000, 10) == [later]
    await log.write_deletions([], ["gen_1"])
    assert await log.deletions(2**50, 10) == []
    assert [each.event for each in await log.events_of("gen_1")] == events


@pytest.mark.asyncio
async def test_ended_generations_are_walked_in_the_order_of_their_requests(log: Log) -> None:
    ends: list[Event] = [requested(), e.GenerationCancelled()]
    assert log.began_empty
    for number, name in enumerate(("gen_1", "gen_2", "gen_open", "gen_3", "gen_gone")):
        first, *_ = entries(name, ends, running_ms=1_000 * number)
        await log.append(replace(submission(name), entries=[first]))
    for name in ("gen_3", "gen_1", "gen_2", "gen_gone"):
        _, last = entries(name, ends, running_ms=9_000)
        await log.append(replace(transaction(name, ends, after=1), entries=[last]))
    await log.append(transaction("gen_gone", [*ends, e.GenerationErased()], after=2, erased=["gen_gone"]))
    found, more = await log.ended(after=0, until_running_ms=9_000, window=2)
    assert ([each.generation_id for each in found], more) == (["gen_1", "gen_2"], 2)
    assert (found[0].position, found[0].tenant, found[0].finished_running_ms) == (1, "acme", 9_000)
    found, more = await log.ended(after=more, until_running_ms=9_000, window=100)
    assert ([each.generation_id for each in found], more) == (["gen_3"], 0)
    found, more = await log.ended(after=0, until_running_ms=500, window=2)
    assert ([each.generation_id for each in found], more) == (["gen_1"], 0)
    assert set(await log.not_erased(["gen_1", "gen_open", "gen_gone", "gen_9"])) == {"gen_1", "gen_open"}
