"""Verify a log, and report each problem: pages, chain, digests, streams, projection, prompts.

Reads one snapshot through a read-only connection, so it may run beside a core; until it ends the WAL file can only
grow. `cli` calls this, and `backup` for each copy.
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Final

from core.domain import stream_check
from core.domain.events import Recorded
from core.domain.projection import Rows, project
from core.domain.state import fold
from core.errors import LogBroken
from core.log import queries
from core.log.connection import sqlite3
from core.log.hash_chain import CHAIN_START, Head, follows
from core.log.queries import EVENT_COLUMNS

MAX_PROBLEMS: Final = 100
"""Problems kept; the others are counted."""


@dataclass(slots=True)
class Report:
    """What was read, and the problems found."""

    events: int = 0
    generations: int = 0
    open: int = 0
    head: Head = Head(0, CHAIN_START, 0)  # noqa: RUF009  (immutable)
    expected_chain: bytes | None = None
    problems: list[str] = field(default_factory=list)
    more_problems: int = 0
    turned_back: int = 0
    """The number of streams in which an event has an earlier time than the one before it. Earlier releases wrote such
    times when the clock stepped back. Nothing is lost, so it is only a warning.
    """

    def add(self, lines: Iterator[str]) -> None:
        """Keep the first MAX_PROBLEMS lines and count the others."""
        for line in lines:
            if len(self.problems) < MAX_PROBLEMS:
                self.problems.append(line)
            else:
                self.more_problems += 1


def check(connection: "sqlite3.Connection", expected_position: int = 0) -> Report:
    """Check everything. The report's `expected_chain` is the hash at `expected_position`, where one is given."""
    report = Report()
    connection.execute("BEGIN")
    try:
        report.add(_pages(connection))
        report.add(_chain(connection, report, expected_position))
        report.add(_streams(connection, report))
        report.add(_strays(connection))
    except Exception as error:  # noqa: BLE001  (a damaged row may hold anything, and none of it may end the report)
        report.add(iter([f"cannot be read on: {type(error).__name__}: {error}"]))
    finally:
        connection.execute("ROLLBACK")
    return report


def _pages(connection: "sqlite3.Connection") -> Iterator[str]:
    for (answer,) in connection.execute("PRAGMA integrity_check"):
        if answer != "ok":
            yield f"database: {' '.join(answer.split())}"


def _chain(connection: "sqlite3.Connection", report: Report, expected_position: int) -> Iterator[str]:
    position, chain = 0, CHAIN_START
    for row in connection.execute(f"SELECT {EVENT_COLUMNS}, chain FROM events ORDER BY position"):  # noqa: S608
        where = f"position {row[0]}, stream {row[1]}"
        if row[0] != position + 1:
            yield f"{where}: follows position {position}"
        if not follows(chain, row):
            yield f"{where}: the chain does not fit what is written here or before"
        position, chain = row[0], row[7]
        report.events += 1
        report.head = Head(position, chain, row[5])
        if position == expected_position:
            report.expected_chain = chain


def _streams(connection: "sqlite3.Connection", report: Report) -> Iterator[str]:
    query = f"SELECT {EVENT_COLUMNS} FROM events ORDER BY stream, version"  # noqa: S608
    for generation_id, rows in groupby(connection.execute(query), key=itemgetter(1)):
        report.generations += 1
        stream, damaged = [], False
        for row in rows:
            try:
                stream.append(queries.recorded(row))
            except LogBroken as error:
                damaged = True
                yield str(error)
        report.turned_back += any(after.at_ms < before.at_ms for before, after in pairwise(stream))
        wrong = [] if damaged else list(stream_check.problems(stream))
        yield from wrong
        if not damaged and not wrong:
            yield from _projection(connection, report, generation_id, stream)


def _projection(
    connection: "sqlite3.Connection", report: Report, generation_id: str, stream: Sequence[Recorded]
) -> Iterator[str]:
    where = f"position {stream[-1].position}, stream {generation_id}"
    state = fold(generation_id, [(each.event, each.at_ms) for each in stream])
    report.open += state.open
    rows: Rows | None = queries.rows(connection, [generation_id]).get(generation_id)
    if rows != project(state):
        yield f"{where}: the projection differs from the log: run `python -m core rebuild`"
    place = connection.execute("SELECT position FROM generations WHERE id = ?", (generation_id,)).fetchone()
    if place is not None and place[0] != stream[0].position:
        yield f"{where}: the projection has its first event at {place[0]} instead of {stream[0].position}"
    kept = queries.prompts(connection, [generation_id]).get(generation_id)
    if state.erased:
        if kept is not None:
            yield f"{where}: is erased, but its prompt is still there"
    elif kept is None:
        yield f"{where}: its prompt is missing"
    else:
        text = f"{kept.prompts.prompt}\0{kept.prompts.negative_prompt}".encode()
        if not hmac.compare_digest(hmac.digest(kept.salt, text, hashlib.sha256), state.prompt_hmac):
            yield f"{where}: its prompt is not the one that was accepted"


def _strays(connection: "sqlite3.Connection") -> Iterator[str]:
    known = "(SELECT stream FROM events WHERE version = 1)"
    for table, column in (("generations", "id"), ("images", "generation_id"), ("prompts", "generation_id")):
        query = f"SELECT DISTINCT {column} FROM {table} WHERE {column} NOT IN {known}"  # noqa: S608
        for (generation_id,) in connection.execute(query):
            yield f"stream {generation_id}: has a row in {table} and no event"


def expected(report: Report, position: int, chain: bytes) -> str:
    """The problem when the log no longer has the event with this chain hash at `position`; empty when it has."""
    if report.expected_chain is None:
        return f"position {position} is expected, but the log ends at {report.head.position}"
    if report.expected_chain != chain:
        return f"position {position} is not what it was: the log did not only grow"
    return ""
