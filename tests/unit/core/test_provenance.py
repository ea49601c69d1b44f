"""Whose history a log is, held against what is noted of it. Pure."""

import json

import pytest

from core.domain.provenance import Claim, LogNote, Provenance, UnreadableNote, decode, encode, refusal

OURS, OTHER = "log_" + "a" * 16, "log_" + "b" * 16
CHAINS = {position: bytes([position]) * 32 for position in range(6)}


def own(log_id: str = OURS, epoch: int = 2, claim: Claim = Claim.NOTED) -> Provenance:
    return Provenance(log_id=log_id, epoch=epoch, claim=claim)


def noted(log_id: str = OURS, epoch: int = 2, position: int = 3, chain: bytes = CHAINS[3]) -> LogNote:
    return LogNote(of=Provenance(log_id=log_id, epoch=epoch), position=position, chain=chain)


@pytest.mark.parametrize("claim", Claim)
@pytest.mark.parametrize(
    ("log", "note", "reason", "taken_over"),
    [
        (own(), noted(), "", ""),
        (own(), noted(position=5, chain=CHAINS[5]), "", ""),
        (own(), noted(position=0, chain=CHAINS[0]), "", ""),
        (own(epoch=3), noted(position=99), "", ""),
        (own(), noted(position=6), "ends at 5, but event 6 was acknowledged", "ends at 5"),
        (own(), noted(chain=CHAINS[4]), "event 3 is not the one", "event 3 is not the one"),
        (own(epoch=1), noted(), "is of epoch 1, but a restore has begun epoch 2", ""),
        (own(OTHER), noted(), f"is another one ({OTHER})", ""),
        (own(OTHER, epoch=9), noted(), f"is another one ({OTHER})", ""),
    ],
)
def test_what_a_log_may_go_on_from(log: Provenance, note: LogNote, reason: str, taken_over: str, claim: Claim) -> None:
    log = Provenance(log_id=log.log_id, epoch=log.epoch, claim=claim)
    found = refusal(log, note, 5, CHAINS.get)
    wanted = taken_over if claim is Claim.TAKES_OVER else reason
    assert wanted in found
    assert bool(wanted) == bool(found)


def test_a_log_without_an_id_is_refused_beside_any_note() -> None:
    assert "has no id yet" in refusal(None, noted(position=0, chain=CHAINS[0]), 5, CHAINS.get)


def test_a_note_is_read_as_it_was_written() -> None:
    note = noted()
    data = encode(note, at_ms=5)
    assert decode(data) == note
    assert json.loads(data)["noted_at_ms"] == 5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        *(
            json.dumps(json.loads(encode(noted(), at_ms=1)) | change).encode()
            for change in (
                {"log_id": "x"},
                {"log_id": 5},
                {"epoch": 0},
                {"epoch": "1"},
                {"epoch": True},
                {"position": -1},
                {"position": 1.5},
                {"position": 2**70},
                {"chain": "ab"},
                {"chain": None},
            )
        ),
    ],
)
def test_what_is_no_note_is_told_apart(data: bytes) -> None:
    with pytest.raises(UnreadableNote):
        decode(data)


def test_a_later_release_may_add_to_a_note() -> None:
    data = json.loads(encode(noted(), at_ms=1)) | {"format": 2, "more": [1]}
    assert decode(json.dumps(data).encode()) == noted()
