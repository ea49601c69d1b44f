"""Erases again, in a log that no core has open, what the list of erasures names: a backup must bring nothing back.

`core.log.offline.backup` calls this for a copy before it takes the log's place. The objects are deleted by core, later:
each erasure leaves its row among the deletions.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from core.domain import commands as c
from core.domain.decide import Now, decide
from core.domain.projection import project
from core.domain.records import Entry, Transaction
from core.domain.state import apply, fold
from core.domain.transaction import not_before
from core.log import queries
from core.log.append import LogWriter
from core.log.connection import connect, sqlite3, statements
from core.log.startup_checks import running_ms


def erase_listed(path: Path, listed: Iterable[Sequence[str]]) -> int:
    """How many generations were erased. The file is one file afterwards, in which no erased prompt is left; it is not
    synced. Raises what a log raises that cannot be written.
    """
    connection = connect(path)
    try:
        for statement in statements("deletions"):
            connection.execute(statement)
        writer = LogWriter(connection)
        now = Now(at_ms=int(path.stat().st_mtime * 1_000), running_ms=running_ms(connection))  # it was just written
        erased = 0
        for piece in listed:
            for generation_id in queries.not_erased(connection, piece):
                writer.append(_erasure(connection, generation_id, now))
                erased += 1
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    finally:
        connection.close()
    return erased


def _erasure(connection: "sqlite3.Connection", generation_id: str, now: Now) -> Transaction:
    stream = queries.stream(connection, generation_id)
    state = fold(generation_id, [(each.event, each.at_ms) for each in stream])
    now, entries = not_before(state, now), []
    for event in decide(state, c.EraseAgain(), now):
        state = apply(state, event, now.at_ms)
        entries.append(
            Entry(
                generation_id=generation_id,
                version=state.version,
                at_ms=now.at_ms,
                running_ms=now.running_ms,
                event=event,
            )
        )
    return Transaction(entries=entries, rows=[project(state)], erased=[generation_id])
