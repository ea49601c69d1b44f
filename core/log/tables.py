"""The log's tables: their columns, how they are made in an empty database, and whether a database has them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Final

from core.domain.projection import GenerationRow, ImageRow
from core.domain.provenance import Claim, Provenance
from core.errors import LogUnusable
from core.log import identity
from core.log.connection import sqlite3, statements

SCHEMA_VERSION: Final = 1
"""In `meta`; core opens a log of this version only."""

GENERATION_COLUMNS: Final = tuple(field.name for field in fields(GenerationRow))
IMAGE_COLUMNS: Final = tuple(field.name for field in fields(ImageRow))


def create(connection: "sqlite3.Connection", claim: Claim = Claim.NEW) -> bool:
    """Create the tables in an empty database, in one transaction. Returns whether it was empty. Raises LogUnusable for
    a foreign database.

    A log of an earlier release gets what it lacks: the newer table and indexes, and a provenance.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not tables:
            for statement in (*statements("log"), *statements("projection")):
                connection.execute(statement)
            seeds = [("schema_version", SCHEMA_VERSION), ("running_ms", 0)]
            connection.executemany("INSERT INTO meta VALUES (?, ?)", seeds)
        else:
            assert_ours(connection)
        for statement in (*statements("twice"), *statements("deletions")):
            connection.execute(statement)
        if identity.read(connection) is None:
            identity.write(connection, Provenance(log_id=identity.new_log_id(), epoch=1, claim=claim))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return not tables


def assert_ours(connection: "sqlite3.Connection") -> None:
    """Raises LogUnusable for a database that is no event log, or one of another version."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not {"meta", "events"} <= tables:
        raise LogUnusable("the database is not an event log of darkroom")
    found = read_meta(connection)["schema_version"]
    if found != SCHEMA_VERSION:
        raise LogUnusable(f"the event log has version {found}, this core reads {SCHEMA_VERSION}: install its release")


def read_meta(connection: "sqlite3.Connection") -> Mapping[str, int]:
    """The rows of `meta`."""
    return dict(connection.execute("SELECT key, value FROM meta"))
