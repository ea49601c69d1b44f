"""`just bench log`: accepted generations a second into core's log, beside plain sqlite3 writing the same bytes.

Ours is the production path: `SqliteLog.append` on the event loop, one call after the other, with checks, protobuf,
envelope, hash chain and rows made inside the measured time. Plain is a loop on one thread over rows prepared as tuples:
BEGIN, five executemany, COMMIT, through the same SQLite library, pragmas, tables, indexes and triggers. A generation is
one event and one row each in generations, images, prompts and keys. Both start with an empty file in the same folder;
rounds alternate; afterwards every table of the two files must have the same rows.
The last line printed is JSON; its `ratio` is ours to plain at 100 generations per commit, median of the rounds.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from core.domain.events import GenerationRequested, Prompts, Spec, Trace
from core.domain.projection import project
from core.domain.records import Entry, KeyRow, PromptRow, Transaction
from core.domain.state import begin
from core.log.append import (
    INSERT_EVENT,
    INSERT_GENERATION,
    INSERT_IMAGE,
    INSERT_KEY,
    INSERT_PROMPT,
    generation_values,
    image_values,
)
from core.log.connection import connect, connect_read_only, sqlite3
from core.log.hash_chain import CHAIN_START, Head, rows_of
from core.log.sqlite_log import SqliteLog
from core.log.tables import create

COMMITS = {1: 400, 10: 200, 100: 100}
"""Generations per commit, and the commits of one round."""

TABLES = {"events": "position", "generations": "position", "images": "generation_id", "prompts": "rowid", "keys": "key"}
NOON_MS = 1_795_348_800_000
Rows = list[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Prepared:
    """One transaction as plain sqlite3 gets it: statements, each with its rows."""

    statements: tuple[tuple[str, Rows], ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if the two sides did not write the same."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench log", description=__doc__)
    parser.add_argument("--alternations", type=int, default=7)
    parser.add_argument("--folder", help="where the temporary files are made (default: the system's)")
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="darkroom-bench-", dir=options.folder))
    try:
        cells = {size: _cell(folder, size, commits, options.alternations) for size, commits in COMMITS.items()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for size, cell in cells.items():
        print(f"{size:4} per commit: ours {cell['ours_per_s']:>9} plain {cell['plain_per_s']:>9} = {cell['ratio']}")
    same = all(cell.pop("same") for cell in cells.values())
    if not same:
        print("the two sides did not write the same bytes")
    print(json.dumps({"bench": "log", "ratio": cells[100]["ratio"], "cells": cells, "sqlite": sqlite3.sqlite_version}))
    return 0 if same else 1


def _cell(folder: Path, size: int, commits: int, alternations: int) -> dict[str, object]:
    transactions = [_transaction(range(at, at + size)) for at in range(0, size * commits, size)]
    prepared = _prepared(transactions)
    ours, plain = [], []
    path = folder / f"{size}.sqlite3"
    for number in range(alternations):
        ours_path, plain_path = path.with_name(f"ours{number}"), path.with_name(f"plain{number}")
        ours.append(size * commits / asyncio.run(_ours(ours_path, transactions)))
        plain.append(size * commits / _plain(plain_path, prepared))
        same = _content(ours_path) == _content(plain_path)
        for each in folder.iterdir():
            each.unlink()
    ratios = [one / other for one, other in zip(ours, plain, strict=True)]
    return {
        "ours_per_s": round(statistics.median(ours)),
        "plain_per_s": round(statistics.median(plain)),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(each, 3) for each in ratios],
        "same": same,
    }


async def _ours(path: Path, transactions: Sequence[Transaction]) -> float:
    async with SqliteLog(path, root_note=path.with_name(f"{path.name}.root")) as log:
        begun = time.perf_counter()
        for transaction in transactions:
            await log.append(transaction)
        return time.perf_counter() - begun


def _plain(path: Path, prepared: Sequence[Prepared]) -> float:
    connection = connect(path)
    try:
        create(connection)
        begun = time.perf_counter()
        for transaction in prepared:
            connection.execute("BEGIN IMMEDIATE")
            for statement, rows in transaction.statements:
                connection.executemany(statement, rows)
            connection.execute("COMMIT")
        return time.perf_counter() - begun
    finally:
        connection.close()


def _content(path: Path) -> str:
    connection = connect_read_only(path)
    digest = sha256()
    try:
        for table, order in TABLES.items():
            for row in connection.execute(f"SELECT * FROM {table} ORDER BY {order}"):
                if row[0] != "log_id":  # of each log its own
                    digest.update(repr(row).encode())
    finally:
        connection.close()
    return digest.hexdigest()


def _transaction(numbers: range) -> Transaction:
    entries, rows, prompts, keys = [], [], [], []
    for number in numbers:
        generation_id = f"gen_{number:026d}"
        event = _requested(number)
        entries.append(
            Entry(generation_id=generation_id, version=1, at_ms=NOON_MS + number, running_ms=number, event=event)
        )
        rows.append(project(begin(generation_id, event)))
        text = Prompts(prompt=f"a large red circle on a white background, number {number:010d}")
        prompts.append(PromptRow(generation_id=generation_id, salt=number.to_bytes(16, "big"), prompts=text))
        body = sha256(generation_id.encode()).digest()
        keys.append(
            KeyRow(
                tenant=event.tenant,
                key=f"{number:032x}",
                generation_id=generation_id,
                body_sha256=body,
                expires_at_running_ms=number + 86_400_000,
            )
        )
    return Transaction(entries=entries, rows=rows, prompts=prompts, keys=keys)


def _requested(number: int) -> GenerationRequested:
    digest = sha256(str(number).encode())
    return GenerationRequested(
        tenant="acme",
        spec=Spec(
            model="demo",
            width=256,
            height=256,
            num_inference_steps=8,
            guidance_scale=3.5,
            seed=number,
            n=1,
            output_format=1,
        ),
        priority=0,
        ttl_s=3600,
        requested_at_ms=NOON_MS + number,
        expires_at_running_ms=3_600_000 + number,
        prompt_hmac=digest.digest(),
        trace=Trace(traceparent=f"00-{digest.hexdigest()[:32]}-{digest.hexdigest()[:16]}-01"),
    )


def _prepared(transactions: Sequence[Transaction]) -> list[Prepared]:
    head, prepared = Head(0, CHAIN_START, 0), []
    for each in transactions:
        events, head = rows_of(each.entries, head)
        places = {row[1]: row[0] for row in events}
        generations: Rows = [(places[row.generation.id], *generation_values(row.generation)) for row in each.rows]
        images: Rows = [image_values(image) for row in each.rows for image in row.images]
        prompts: Rows = [(p.generation_id, p.salt, p.prompts.prompt, p.prompts.negative_prompt) for p in each.prompts]
        keys: Rows = [
            (key.tenant, key.key, key.generation_id, key.body_sha256, key.expires_at_running_ms, 0) for key in each.keys
        ]
        prepared.append(
            Prepared(
                (
                    (INSERT_EVENT, events),
                    (INSERT_GENERATION, generations),
                    (INSERT_IMAGE, images),
                    (INSERT_PROMPT, prompts),
                    (INSERT_KEY, keys),
                )
            )
        )
    return prepared
