"""Erase what the list of erasures names, in a log that no core has open: a backup must not bring it back.

`backup` calls this for a copy before it takes the log's place. Each erasure leaves its row in the table of deletions,
by which core deletes the objects after its next start.
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
    """Erase the `listed` generations (batches of ids), and return how many the log still held. Afterwards the log is a
    single file without erased prompts, not yet synced. Raises as `LogWriter.append`.
    """
    connection = connect(path)
    try:
        for statement in statements("deletions"):
            connection.execute(statement)
        writer = LogWriter(connection)
        now = Now(at_ms=int(path.stat().st_mtime * 1_000), running_ms=running_ms(connection))  # the copy was just made
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
