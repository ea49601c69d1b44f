"""The log's provenance, in rows of its table `meta`. A log of an earlier release gets one when it is opened."""

import secrets
from typing import Final

from core.domain.provenance import Claim, LogNote, Provenance
from core.log.connection import sqlite3
from core.log.hash_chain import CHAIN_START, read_head

_ID_BYTES: Final = 8
_SET: Final = "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"


def new_log_id() -> str:
    """A new random id."""
    return f"log_{secrets.token_hex(_ID_BYTES)}"


def read(connection: "sqlite3.Connection") -> Provenance | None:
    """The provenance; None for a log of an earlier release."""
    found = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('log_id', 'epoch', 'claim')"))
    if "log_id" not in found:
        return None
    return Provenance(log_id=str(found["log_id"]), epoch=int(found["epoch"]), claim=Claim(found["claim"]))


def write(connection: "sqlite3.Connection", of: Provenance) -> None:
    """Replace the provenance, in the transaction of the caller."""
    connection.executemany(_SET, [("log_id", of.log_id), ("epoch", of.epoch), ("claim", int(of.claim))])


def note(connection: "sqlite3.Connection", of: Provenance) -> LogNote:
    """The note of the log as it is now."""
    head = read_head(connection)
    return LogNote(of=of, position=head.position, chain=head.chain)


def chain_at(connection: "sqlite3.Connection", position: int) -> bytes | None:
    """The chain hash at a position; None beyond the end."""
    if not position:
        return CHAIN_START
    row = connection.execute("SELECT chain FROM events WHERE position = ?", (position,)).fetchone()
    return row[0] if row else None
