"""Rebuild the projection from the events, in one transaction, and count the rows that were wrong.

Only for a log that no core has open: `cli` holds the lock.
"""

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from core.domain.projection import project
from core.domain.state import fold
from core.log import queries
from core.log.append import INSERT_GENERATION, INSERT_IMAGE, generation_values, image_values
from core.log.connection import sqlite3, statements
from core.log.queries import EVENT_COLUMNS

TABLES = ("generations", "images")
INDEXES = ("generations_of_tenant", "generations_open")

# ruff: noqa: S608  (every inserted piece is a constant of this module)


@dataclass(slots=True)
class Rebuilt:
    """What was rebuilt. `differing` counts rows that only the old or only the new tables have; `prompts` counts the
    deleted prompts of erased generations.
    """

    events: int = 0
    generations: int = 0
    images: int = 0
    differing: int = 0
    prompts: int = 0


def rebuild(connection: "sqlite3.Connection") -> Rebuilt:
    """Replace the tables of the projection. Raises LogBroken, and changes nothing, if the log is damaged."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        # A renamed table keeps its indexes, and the new table needs their names.
        for index in INDEXES:
            connection.execute(f"DROP INDEX IF EXISTS {index}")
        for table in TABLES:
            connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
        for statement in statements("projection"):
            connection.execute(statement)
        rebuilt = Rebuilt()
        _fill(connection, rebuilt)
        erased = "(SELECT id FROM generations WHERE erased = 1)"
        rebuilt.prompts = connection.execute(f"DELETE FROM prompts WHERE generation_id IN {erased}").rowcount
        for table in TABLES:
            rebuilt.differing += _differing(connection, table)
            connection.execute(f"DROP TABLE old_{table}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return rebuilt


def _fill(connection: "sqlite3.Connection", rebuilt: Rebuilt) -> None:
    query = f"SELECT {EVENT_COLUMNS} FROM events ORDER BY stream, version"
    for generation_id, rows in groupby(connection.execute(query), key=itemgetter(1)):
        stream = [queries.recorded(row) for row in rows]
        state = fold(generation_id, [(each.event, each.at_ms) for each in stream])
        made = project(state)
        connection.execute(INSERT_GENERATION, (stream[0].position, *generation_values(made.generation)))
        connection.executemany(INSERT_IMAGE, [image_values(image) for image in made.images])
        rebuilt.events += len(stream)
        rebuilt.generations += 1
        rebuilt.images += len(made.images)


def _differing(connection: "sqlite3.Connection", table: str) -> int:
    one, other = f"SELECT * FROM {table}", f"SELECT * FROM old_{table}"
    query = f"SELECT count(*) FROM ({one} EXCEPT {other}) UNION ALL SELECT count(*) FROM ({other} EXCEPT {one})"
    return sum(count for (count,) in connection.execute(query))
