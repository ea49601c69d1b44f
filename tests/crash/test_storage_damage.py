"""Torn ends and flipped bits of a log that a killed core left: refused with what to do, or harmless, never silent."""

import random
from collections import Counter

import pytest

from tests.storage import damage
from tests.storage.damage import FRAME, NAME, WAL_HEADER, Left, altered, look

pytestmark = pytest.mark.timeout(400)
RUNBOOK = "docs/runbook.md, When the log is damaged"
WAL = f"{NAME}-wal"


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    return damage.leave(tmp_path_factory.mktemp("left"))


def test_row_23_a_torn_end_keeps_every_synced_transaction(left: Left) -> None:
    """Cut anywhere past the last sync: all is there. Cut before it: refused, for it was acknowledged."""
    wal = left.wal
    ends = [WAL_HEADER, *damage.commits(wal)]
    assert len(ends) > 5
    assert len(wal) > ends[-1], "core was not killed within a transaction"
    kept = {*range(ends[-1], len(wal) + 1, 256), *range(WAL_HEADER, len(wal), 3 * FRAME), *ends, len(wal)}
    below = {*range(0, ends[-1], 6_007), ends[-1] - 1, ends[-1] - FRAME}
    for size in sorted(kept | below):
        with altered(left.folder, {WAL: wal[:size]}) as path:
            outcome = look(path, left.content)
        if size >= ends[-1]:
            assert outcome.content == left.content, f"cut to {size} of {len(wal)} bytes: {outcome.refusal}"
            assert not outcome.problems, outcome.problems[:3]
        else:
            assert "was acknowledged" in outcome.refusal, f"cut to {size} bytes, before the sync at {ends[-1]}"
            assert RUNBOOK in outcome.refusal


def test_row_23_a_torn_end_at_every_byte_past_the_last_sync(left: Left) -> None:
    """What SQLite makes of each: the last synced transaction is the log's end. (What core makes of it is above.)"""
    wal = left.wal
    *_, synced = damage.commits(wal)
    last = left.content["events"][-1]
    seen = 0
    for size, head in damage.heads_of_torn_ends(left, synced):
        assert (head.position, head.chain) == (last[0], last[7]), f"cut to {size} of {len(wal)} bytes"
        seen += 1
    assert seen == len(wal) - synced + 1 > FRAME, "core was not killed within a transaction"


@pytest.mark.parametrize("file", [NAME, WAL])
def test_row_24_a_flipped_bit_is_found_or_does_no_harm(left: Left, file: str) -> None:
    """Found at the start, or by `core verify`; else the content is what it was."""
    chance = random.Random(24)
    whole = (left.folder / file).read_bytes()
    places = [*range(0, 100, 5), *(chance.randrange(len(whole)) for _ in range(60))]
    seen: Counter[str] = Counter()
    for place in places:
        content = bytearray(whole)
        content[place] ^= 1 << chance.randrange(8)
        with altered(left.folder, {file: bytes(content)}) as path:
            outcome = look(path, left.content)
            kept = (path.parent / file).read_bytes()
        if outcome.refusal:
            assert kept == content, f"byte {place}: a refused log was changed"
            assert RUNBOOK in outcome.refusal or "has version" in outcome.refusal, f"byte {place}: {outcome.refusal}"
            seen["refused"] += 1
        elif outcome.problems:
            seen["verify"] += 1
        else:
            assert outcome.content == left.content, f"byte {place} of {file} changed something, and nobody said so"
            seen["harmless"] += 1
    assert seen["refused"] >= 10, seen


@pytest.mark.parametrize(
    "changes",
    [
        {WAL: None},
        {WAL: b""},
        {NAME: None},
        {NAME: b""},
        {NAME: None, WAL: None},
        {NAME: None, f"{NAME}.begun": None},
        {NAME: b"", f"{NAME}.begun": None, f"{NAME}.head": None},
        {NAME: None, WAL: None, f"{NAME}.begun": None},
    ],
    ids=lambda changes: ", ".join(f"{name} {'gone' if new is None else 'empty'}" for name, new in changes.items()),
)
def test_row_23_a_lost_or_emptied_file_never_begins_an_empty_log(left: Left, changes: dict[str, bytes | None]) -> None:
    with altered(left.folder, changes) as path:
        before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
        outcome = look(path)
        after = {each.name: each.read_bytes() for each in path.parent.iterdir() if not each.name.endswith("-shm")}
    assert (
        "was acknowledged" in outcome.refusal or "one was begun here" in outcome.refusal or "is not" in outcome.refusal
    )
    after.pop(f"{NAME}.lock", None)
    for name, content in before.items():
        assert after.get(name) == content, f"{name} was changed, and a runbook could need it"


@pytest.mark.parametrize("note", [None, b"", b"rubbish\n"])
def test_row_24_a_lost_note_of_the_head_costs_nothing_but_its_proof(left: Left, note: bytes | None) -> None:
    with altered(left.folder, {f"{NAME}.head": note}) as path:
        assert look(path, left.content).content == left.content
