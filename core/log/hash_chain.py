"""The hash chain over the events: each row holds a hash of its content and of the previous row's hash.

It lets a later reader prove that no row has changed and that the log has only grown. `append` extends the chain; the
checks at a start and `verify` follow it.
"""

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from core.domain.records import Entry
from core.log.codec import encode, type_of
from core.log.connection import sqlite3

CHAIN_START: Final = bytes(32)

_HEAD = struct.Struct(">QQQQH")


class Head(NamedTuple):
    """The position, hash and running time of the last event; zeros for an empty log."""

    position: int
    chain: bytes
    running_ms: int


Row = tuple[Any, ...]


def link(chain: bytes, row: Row) -> bytes:
    """The hash of an event row (position, stream, version, type, at_ms, running_ms, data) after `chain`."""
    position, stream, version, kind, at_ms, running_ms, data = row
    name = f"{stream}\n{kind}".encode()
    digest = blake2b(chain, digest_size=32)
    digest.update(_HEAD.pack(position, version, at_ms, running_ms, len(name)))
    digest.update(name)
    digest.update(data)
    return digest.digest()


def follows(chain: bytes, row: Row) -> bool:
    """Whether an event row, which ends with its hash, follows `chain`. False for a damaged row, whatever it holds."""
    try:
        return bool(link(chain, row[:-1]) == row[-1])
    except (struct.error, TypeError, ValueError):
        return False


def rows_of(entries: Sequence[Entry], head: Head) -> tuple[list[Row], Head]:
    """The table rows of new events after `head`, and the head after them."""
    rows = []
    position, chain, running_ms = head
    for entry in entries:
        position += 1
        running_ms = entry.running_ms
        event = entry.event
        row = (position, entry.generation_id, entry.version, type_of(event), entry.at_ms, running_ms, encode(event))
        chain = link(chain, row)
        rows.append((*row, chain))
    return rows, Head(position, chain, running_ms)


def read_head(connection: "sqlite3.Connection") -> Head:
    """The end of the log."""
    query = "SELECT position, chain, running_ms FROM events ORDER BY position DESC LIMIT 1"
    row = connection.execute(query).fetchone()
    return Head(*row) if row else Head(0, CHAIN_START, 0)
