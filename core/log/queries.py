"""The reading half of the SQLite log: each read is one function on one connection.

`sqlite_log` calls these on its threads; the offline commands call them directly. A list of ids is one JSON parameter,
so that each statement has one text, which SQLite prepares once.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from core.domain.events import Prompts, Recorded
from core.domain.projection import GenerationRow, ImageRow, Rows
from core.domain.records import KeyRow, PromptRow
from core.errors import LogBroken
from core.log.codec import BadEvent, decode, type_of
from core.log.connection import sqlite3
from core.log.tables import GENERATION_COLUMNS, IMAGE_COLUMNS
from core.ports import Deletion, Ended

NEWEST: Final = 2**62
_GENERATIONS = ", ".join(GENERATION_COLUMNS)
_IMAGES = ", ".join(f'"{column}"' for column in IMAGE_COLUMNS)
EVENT_COLUMNS: Final = "position, stream, version, type, at_ms, running_ms, data"
_GIVEN = "(SELECT value FROM json_each(?))"
_LAST_MS = "SELECT running_ms FROM events WHERE stream = g.id ORDER BY version DESC LIMIT 1"

# ruff: noqa: S608  (every inserted piece is a constant of this module)


def recorded(row: tuple[Any, ...]) -> Recorded:
    """An event from its table row (EVENT_COLUMNS). Raises LogBroken for damaged bytes."""
    position, stream, version, kind, at_ms, running_ms, data = row
    try:
        event = decode(data)
    except BadEvent as error:
        raise LogBroken(f"event {position} of {stream}: {error}") from None
    if type_of(event) != kind:
        raise LogBroken(f"event {position} of {stream}: says {kind!r}, holds {type_of(event)!r}")
    return Recorded(
        position=position, generation_id=stream, version=version, at_ms=at_ms, running_ms=running_ms, event=event
    )


def stream(connection: "sqlite3.Connection", generation_id: str) -> Sequence[Recorded]:
    """As `ports.WriterReads.stream`."""
    query = f"SELECT {EVENT_COLUMNS} FROM events WHERE stream = ? ORDER BY version"
    return _gapless(generation_id, [recorded(row) for row in connection.execute(query, (generation_id,))])


def open_streams(connection: "sqlite3.Connection", after: int, limit: int) -> tuple[Sequence[Sequence[Recorded]], int]:
    """Up to `limit` open streams that began after position `after`, and the first position of the last one."""
    chosen = "SELECT id, position FROM generations WHERE status IN (1, 2) AND position > ? ORDER BY position LIMIT ?"
    query = (
        f"SELECT g.position, {EVENT_COLUMNS.replace('position', 'e.position').replace('version', 'e.version')} "
        f"FROM ({chosen}) AS g JOIN events AS e ON e.stream = g.id ORDER BY g.position, e.version"
    )
    found = connection.execute(query, (after, limit)).fetchall()
    groups = [(first, [recorded(row[1:]) for row in rows]) for first, rows in groupby(found, key=itemgetter(0))]
    streams = [_gapless(events[0].generation_id, events) for _, events in groups]
    return streams, groups[-1][0] if groups else after


def _gapless(generation_id: str, events: Sequence[Recorded]) -> Sequence[Recorded]:
    for wanted, event in enumerate(events, 1):
        if event.version != wanted:
            raise LogBroken(
                f"event {event.position} of {generation_id}: version {event.version} where {wanted} belongs"
            )
    return events


def known(connection: "sqlite3.Connection", generation_ids: Sequence[str]) -> Collection[str]:
    """As `ports.WriterReads.known`."""
    query = f"SELECT id FROM generations WHERE id IN {_GIVEN}"
    return [generation_id for (generation_id,) in connection.execute(query, (json.dumps(list(generation_ids)),))]


def rows(connection: "sqlite3.Connection", generation_ids: Sequence[str]) -> Mapping[str, Rows]:
    """As `ports.Projection.rows`."""
    query = f"SELECT {_GENERATIONS} FROM generations WHERE id IN {_GIVEN}"
    generations = [_generation(row) for row in connection.execute(query, (json.dumps(list(generation_ids)),))]
    return {each.generation.id: each for each in _with_images(connection, generations)}


def page(
    connection: "sqlite3.Connection", tenant: str, *, before: int, limit: int, status: int, looks: int
) -> tuple[Sequence[Rows], int]:
    """As `ports.Projection.page`. The index does not cover the status, so rows of other statuses count as looks too."""
    start = before or NEWEST
    beyond = (
        "SELECT position FROM generations WHERE tenant = ? AND position < ? ORDER BY position DESC LIMIT 1 OFFSET ?"
    )
    # `rest` bounds the rows that are read: without it a rare status would read all rows of the tenant.
    skipped = looks if status else min(limit, looks)
    [(rest,)] = connection.execute(beyond, (tenant, start, skipped)).fetchall() or [(0,)]
    query = (
        f"SELECT position, {_GENERATIONS} FROM generations WHERE tenant = ? AND position < ? AND position > ? "
        "AND (? = 0 OR status = ?) ORDER BY position DESC LIMIT ?"
    )
    found = connection.execute(query, (tenant, start, rest, status, status, limit + 1)).fetchall()
    shown = found[:limit]
    more = shown[-1][0] if len(found) > limit else rest and rest + 1
    return list(_with_images(connection, [_generation(row[1:]) for row in shown])), more


def prompts(connection: "sqlite3.Connection", generation_ids: Sequence[str]) -> Mapping[str, PromptRow]:
    """As `ports.Projection.prompts`."""
    query = f"SELECT generation_id, salt, prompt, negative_prompt FROM prompts WHERE generation_id IN {_GIVEN}"
    found = connection.execute(query, (json.dumps(list(generation_ids)),))
    return {
        generation_id: PromptRow(
            generation_id=generation_id, salt=salt, prompts=Prompts(prompt=prompt, negative_prompt=negative)
        )
        for generation_id, salt, prompt, negative in found
    }


def keys(
    connection: "sqlite3.Connection", wanted: Sequence[tuple[str, str]], running_ms: int
) -> Mapping[tuple[str, str], KeyRow]:
    """As `ports.WriterReads.keys`."""
    query = (
        "SELECT k.tenant, k.key, k.generation_id, k.body_sha256, k.expires_at_running_ms "
        "FROM json_each(?) AS w CROSS JOIN keys AS k ON k.tenant = json_extract(w.value, '$[0]') "
        "AND k.key = json_extract(w.value, '$[1]') WHERE k.expires_at_running_ms > ?"
    )
    found = connection.execute(query, (json.dumps([list(pair) for pair in wanted]), running_ms))
    return {
        (tenant, key): KeyRow(
            tenant=tenant, key=key, generation_id=generation_id, body_sha256=body, expires_at_running_ms=expires
        )
        for tenant, key, generation_id, body, expires in found
    }


def deletions(connection: "sqlite3.Connection", running_ms: int, limit: int) -> Sequence[Deletion]:
    """As `ports.Deletions.deletions`."""
    query = (
        "SELECT generation_id, due_running_ms, looks FROM deletions WHERE due_running_ms <= ? "
        "ORDER BY due_running_ms LIMIT ?"
    )
    return [
        Deletion(generation_id=generation_id, due_running_ms=due, looks=looks)
        for generation_id, due, looks in connection.execute(query, (running_ms, limit))
    ]


def ended(
    connection: "sqlite3.Connection", *, after: int, until_running_ms: int, window: int
) -> tuple[Sequence[Ended], int]:
    """As `ports.Retained.ended`. Running time never decreases along the log, so the event at the end of the window
    tells whether there may be more.
    """
    end = "SELECT running_ms FROM events WHERE position = "
    query = (
        f"SELECT g.position, g.id, g.tenant, g.finished_at_ms, ({_LAST_MS}) FROM generations AS g "
        "WHERE g.position > ? AND g.position <= ? AND g.erased = 0 AND g.status > 2 "
        f"AND ({end} g.position) <= ? ORDER BY g.position"
    )
    beyond = connection.execute(end + "?", (after + window,)).fetchone()
    found = [
        Ended(position=p, generation_id=g, tenant=t, finished_at_ms=at, finished_running_ms=running)
        for p, g, t, at, running in connection.execute(query, (after, after + window, until_running_ms))
    ]
    return found, after + window if beyond is not None and beyond[0] <= until_running_ms else 0


def not_erased(connection: "sqlite3.Connection", generation_ids: Sequence[str]) -> Sequence[str]:
    """As `ports.Retained.not_erased`."""
    query = f"SELECT id FROM generations WHERE erased = 0 AND id IN {_GIVEN}"
    return [generation_id for (generation_id,) in connection.execute(query, (json.dumps(list(generation_ids)),))]


def _with_images(connection: "sqlite3.Connection", generations: Iterable[GenerationRow]) -> Iterator[Rows]:
    wanted = list(generations)
    query = f'SELECT {_IMAGES} FROM images WHERE generation_id IN {_GIVEN} ORDER BY generation_id, "index"'
    found = connection.execute(query, (json.dumps([each.id for each in wanted]),))
    images = {
        generation_id: tuple(ImageRow(**dict(zip(IMAGE_COLUMNS, row, strict=True))) for row in group)
        for generation_id, group in groupby(found, key=itemgetter(0))
    }
    for each in wanted:
        yield Rows(generation=each, images=images.get(each.id, ()))


def _generation(row: tuple[Any, ...]) -> GenerationRow:
    return GenerationRow(**dict(zip(GENERATION_COLUMNS, row, strict=True)))
