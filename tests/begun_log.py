"""A log as core's first start leaves it, marked as noted in the public bucket, for tests that have no bucket."""

from dataclasses import replace
from pathlib import Path

from core.domain.provenance import Claim
from core.log import root_note
from core.log.sqlite_log import SqliteLog


async def begin_log(data_dir: Path) -> None:
    """Begin an empty log in the data folder."""
    path = data_dir / "core" / "log.sqlite3"
    async with SqliteLog(path, root_note=data_dir / root_note.NAME) as log:
        await log.noted(replace(log.note.of, claim=Claim.NOTED))
