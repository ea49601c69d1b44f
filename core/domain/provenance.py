"""The identity of a log: its id, its epoch and its head. Pure.

The log stores its own provenance. Notes of it are kept outside the log's folder, one in the data folder (`root_note`)
and one in the public bucket (`public_note`). They let core tell a first start from a missing folder, and the right log
from an older copy or the log of another stack.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from core.errors import LogUnusable

LOG_ID: Final = re.compile(r"log_[0-9a-f]{16}")
MAX_NOTE_BYTES: Final = 4_096
"""The limit on reading a note; core writes shorter ones."""

GO_ON: Final = (
    "Put the right one back; or, to go on from this one on purpose, `python -m core backup FILE` and "
    "`python -m core restore FILE --replace`. docs/runbook.md, When the log's folder is gone, older, or another one"
)

_CHAIN: Final = re.compile(r"[0-9a-f]{64}")


class Claim(IntEnum):
    """Whether the log may replace a public note of another log."""

    NOTED = 0
    """No: the public note has named this log before."""
    NEW = 1
    """No; and an empty log accepts nothing before the public note names it."""
    TAKES_OVER = 2
    """Yes: an operator made the log by `init` or `restore`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The log's id and epoch. Epochs count from 1; a restore begins the next one, since its history branches off."""

    log_id: str
    epoch: int
    claim: Claim = Claim.NOTED

    def same(self, other: "Provenance") -> bool:
        """Whether both are the same history, possibly at different positions."""
        return (self.log_id, self.epoch) == (other.log_id, other.epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogNote:
    """The content of a note: an event that was acknowledged in that history, by position and chain hash."""

    of: Provenance
    position: int
    chain: bytes


class UnreadableNote(LogUnusable):
    """The object at the note's place is not a note that this release can read."""


def refusal(own: Provenance | None, note: LogNote, ends_at: int, chain_at: Callable[[int], bytes | None]) -> str:
    """Why the log must not be used where `note` was written, as a phrase to follow "the event log"; empty when it may.

    `own` is the log's provenance, None for a log without an id. `chain_at` returns its chain hash at a position, None
    beyond its end at `ends_at`.
    """
    noted = note.of
    if own is None:
        return f"is an older copy, or another log: {noted.log_id} was begun here, and this one has no id yet"
    if own.log_id != noted.log_id:
        takes_over = own.claim is Claim.TAKES_OVER
        return "" if takes_over else f"is another one ({own.log_id}) than the one that was begun here ({noted.log_id})"
    if own.epoch > noted.epoch:
        return ""  # a restore has begun this epoch since the note was written
    if own.epoch < noted.epoch:
        takes_over = own.claim is Claim.TAKES_OVER
        return "" if takes_over else f"is of epoch {own.epoch}, but a restore has begun epoch {noted.epoch}"
    chain = chain_at(note.position)
    if chain is None:
        return f"is an older copy: it ends at {ends_at}, but event {note.position} was acknowledged"
    if chain != note.chain:
        return f"is another continuation: event {note.position} is not the one that was acknowledged"
    return ""


def encode(note: LogNote, *, at_ms: int) -> bytes:
    """The bytes of the public note: JSON, so that people can read it. `at_ms` is informative."""
    return json.dumps(
        {
            "format": 1,
            "log_id": note.of.log_id,
            "epoch": note.of.epoch,
            "position": note.position,
            "chain": note.chain.hex(),
            "noted_at_ms": at_ms,
        }
    ).encode("ascii")


def decode(data: bytes) -> LogNote:
    """The note in the bytes of `encode`. Raises UnreadableNote."""
    try:
        found = json.loads(data)
        log_id, epoch, position, chain = (found[name] for name in ("log_id", "epoch", "position", "chain"))
        whole = all(type(each) is int and 0 <= each < 2**63 for each in (epoch, position))
        if not (whole and epoch and LOG_ID.fullmatch(log_id) and _CHAIN.fullmatch(chain)):
            raise ValueError
    except (ValueError, TypeError, LookupError, RecursionError):
        raise UnreadableNote("the note of the log in the public bucket cannot be read") from None
    of = Provenance(log_id=log_id, epoch=epoch)
    return LogNote(of=of, position=position, chain=bytes.fromhex(chain))
