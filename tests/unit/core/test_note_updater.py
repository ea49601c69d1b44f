"""The note in the public bucket: when it is read and written, and what ends core. In virtual time."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from core.domain.provenance import Claim, LogNote, Provenance, decode, encode
from core.errors import LogBroken, LogUnusable
from core.log.first_start import FirstStart
from core.runtime.note_updater import EVERY_S, FINISH_S, START_LOOK_S, NoteUpdater
from infra.retry import Permanent
from tests.core_events import submission
from tests.fake_log import FakeLog
from tests.unit.core.rig import context
from tests.virtual_time import run

OWN = Provenance(log_id="log_" + "a" * 16, epoch=2)
OTHER = Provenance(log_id="log_" + "b" * 16, epoch=1)


@dataclass
class Notes:
    """A public bucket. `away`: calls raise it; `hangs`: calls never end."""

    content: bytes | None = None
    away: Exception | None = None
    read_only: bool = False
    hangs: bool = False
    pictures: bool = False
    reads: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)

    async def read(self) -> bytes | None:
        await self._arrive()
        self.reads.append(asyncio.get_running_loop().time())
        return self.content

    async def write(self, note: bytes) -> None:
        await self._arrive()
        if self.read_only:
            raise Permanent("put public: AccessDenied")
        self.writes.append(asyncio.get_running_loop().time())
        self.content = note

    async def unexplained(self) -> bool:
        await self._arrive()
        return self.pictures and self.content is None

    async def _arrive(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.away is not None:
            raise self.away

    @property
    def note(self) -> LogNote:
        assert self.content is not None
        return decode(self.content)


class Rig:
    def __init__(self, claim: Claim = Claim.NOTED, events: int = 0) -> None:
        self.log = FakeLog(of=replace(OWN, claim=claim))
        self.notes = Notes()
        self.updater = NoteUpdater(self.log, self.notes, context(wall_ms=lambda: 5, rng=lambda: 1.0))
        self._events = events

    async def fill(self) -> None:
        for number in range(self._events):
            await self.log.append(submission(f"gen_{number}"))

    async def for_s(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await work()

    def noted(self, of: Provenance, position: int = 0, chain: bytes = bytes(32)) -> None:
        self.notes.content = encode(LogNote(of=of, position=position, chain=chain), at_ms=1)


def test_it_writes_once_a_minute_and_only_what_has_changed() -> None:
    async def body() -> None:
        rig = Rig()
        await rig.for_s(3.5 * EVERY_S, rig.updater.run)
        assert len(rig.notes.writes) == 1, "nothing has happened"
        assert len(rig.notes.reads) == 4
        await rig.log.append(submission("gen_1"))
        await rig.log.append(submission("gen_2"))
        await rig.for_s(3.5 * EVERY_S, rig.updater.run)
        assert len(rig.notes.writes) == 2
        assert (rig.notes.note.position, rig.notes.note.of) == (2, OWN)

    run(body())


def test_a_new_log_waits_for_its_note_and_says_so() -> None:
    async def body() -> None:
        rig = Rig(Claim.NEW)
        rig.notes.away = Permanent("put public: AccessDenied")
        await rig.for_s(60, rig.updater.introduce)
        assert "not noted in the public bucket yet (put public: AccessDenied)" in rig.updater.trouble
        rig.notes.away, rig.notes.read_only = None, True
        await rig.for_s(60, rig.updater.introduce)
        assert rig.updater.trouble
        assert rig.log.of.claim is Claim.NEW
        rig.notes.read_only = False
        await asyncio.wait_for(rig.updater.introduce(), 10)
        assert rig.updater.trouble == ""
        assert (rig.log.of.claim, rig.notes.note.position) == (Claim.NOTED, 0)

    run(body())


@pytest.mark.parametrize("claim", Claim)
@pytest.mark.parametrize("fault", ["away", "read only", "hangs"])
def test_a_log_that_has_events_starts_whatever_the_store_does(claim: Claim, fault: str) -> None:
    async def body() -> None:
        rig = Rig(claim, events=2)
        await rig.fill()
        rig.notes.away = Permanent("AccessDenied") if fault == "away" else None
        rig.notes.read_only, rig.notes.hangs = fault == "read only", fault == "hangs"
        await asyncio.wait_for(rig.updater.introduce(), START_LOOK_S + 1)
        await asyncio.wait_for(rig.updater.finish(), FINISH_S + 1)
        assert rig.updater.trouble == ""
        rig.notes.away, rig.notes.read_only, rig.notes.hangs = None, False, False
        await rig.for_s(30, rig.updater.run)
        assert (rig.notes.note.position, rig.log.of.claim) == (2, Claim.NOTED)

    run(body())


def test_a_log_that_the_bucket_does_not_know_any_more_is_noted_again() -> None:
    async def body() -> None:
        rig = Rig(events=1)
        await rig.fill()
        await rig.for_s(1, rig.updater.run)
        rig.notes.content = None
        await rig.for_s(1, rig.updater.run)
        assert rig.notes.note.position == 1
        rig.notes.content = b"somebody's"
        await rig.for_s(1, rig.updater.run)
        assert rig.notes.note.position == 1

    run(body())


@pytest.mark.parametrize(
    ("of", "position", "reason"),
    [
        (OTHER, 0, "is another one"),
        (replace(OWN, epoch=3), 0, "is of epoch 2, but a restore has begun epoch 3"),
        (OWN, 9, "is an older copy: it ends at 1, but event 9 was acknowledged"),
        (OWN, 1, "is another continuation"),
    ],
)
@pytest.mark.parametrize("claim", [Claim.NOTED, Claim.NEW])
def test_what_is_noted_is_not_taken_back(of: Provenance, position: int, reason: str, claim: Claim) -> None:
    """At the start, and in the run: another core has taken over."""

    async def body() -> None:
        rig = Rig(claim, events=1)
        await rig.fill()
        rig.noted(of, position, b"x" * 32)
        before = rig.notes.content
        for work in (rig.updater.introduce, rig.updater.run):
            with pytest.raises(LogUnusable, match=reason):
                await work()
        assert rig.notes.content == before

    run(body())


def test_a_log_that_was_just_begun_does_not_touch_what_it_cannot_read() -> None:
    async def body() -> None:
        rig = Rig(Claim.NEW)
        rig.notes.content = b"of a later release"
        with pytest.raises(LogUnusable, match="cannot be read"):
            await rig.updater.introduce()

    run(body())


@pytest.mark.parametrize(
    ("of", "epoch"), [(OTHER, 2), (replace(OWN, epoch=1), 2), (OWN, 3), (replace(OWN, epoch=7), 8)]
)
def test_a_log_that_takes_over_has_a_later_epoch_than_what_it_replaces(of: Provenance, epoch: int) -> None:
    """So the core that wrote that note, here or elsewhere, ends at its next look."""

    async def body() -> None:
        rig = Rig(Claim.TAKES_OVER, events=1)
        await rig.fill()
        rig.noted(of, 99, b"x" * 32)
        await rig.updater.introduce()
        assert rig.log.of == rig.notes.note.of == replace(OWN, epoch=epoch)
        assert rig.notes.note.position == 1

    run(body())


def test_a_broken_log_is_no_trouble_of_the_store() -> None:
    async def body() -> None:
        rig = Rig(Claim.NEW)
        rig.log.broken = True
        with pytest.raises(LogBroken):
            await rig.updater.introduce()

    run(body())


class First:
    def __init__(self) -> None:
        self.notes = Notes()
        self.start = FirstStart(self.notes, Path("data/core/log.sqlite3"), rng=lambda: 1.0)


def test_a_first_start_is_one_where_nothing_tells_of_a_log() -> None:
    async def body() -> None:
        await First().start.permit()

    run(body())


@pytest.mark.parametrize(
    ("content", "pictures", "why"),
    [
        (
            encode(LogNote(of=OTHER, position=0, chain=bytes(32)), at_ms=1),
            False,
            "notes log_b{16}, epoch 1, at event 0",
        ),
        (b"of a later release", False, "cannot be read"),
        (None, True, "pictures that no stack's note accounts for"),
    ],
)
def test_what_tells_of_a_log_refuses(content: bytes | None, pictures: bool, why: str) -> None:
    async def body() -> None:
        first = First()
        first.notes.content, first.notes.pictures = content, pictures
        with pytest.raises(LogUnusable, match=why) as caught:
            await first.start.permit()
        assert "core init" in str(caught.value)
        assert "\n" not in str(caught.value)

    run(body())


def test_while_nobody_can_say_it_waits() -> None:
    async def body() -> None:
        first = First()
        first.notes.away = Permanent("list public: AccessDenied")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first.start.permit(), 3_600)
        assert "cannot say whether there was one (list public: AccessDenied)" in first.start.trouble
        first.notes.away = None
        await asyncio.wait_for(first.start.permit(), 1)
        assert first.start.trouble == ""

    run(body())
