"""Decides whether a log may be begun where there is none. `sqlite_log` calls it before it creates anything.

By then the data folder has no trace of an earlier log, so the public bucket decides: a note of this stack's log, or
pictures of a release that wrote no notes, mean that the folder is missing. While the bucket cannot be reached, core
waits: an empty history beside an old one is worse than a late start.
"""

import asyncio
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final

import structlog

from core.domain.provenance import LogNote, UnreadableNote, decode
from core.errors import LogUnusable
from core.log.files import PUT_BACK
from core.ports import PublicNotes
from infra.retry import Permanent, Retryable, backoff_s

_log = structlog.get_logger()
FIRST_WAIT_S: Final = 0.2
LONGEST_WAIT_S: Final = 5.0


class FirstStart:
    """`log`: the path of the missing log, for the messages. `trouble`: why core still waits; empty when it does not."""

    def __init__(self, notes: PublicNotes, log: Path, *, rng: Callable[[], float]) -> None:
        self._notes = notes
        self._path = log
        self._rng = rng
        self.trouble = ""

    async def permit(self) -> None:
        """Returns when this is a first start; waits while that is unknown. Raises LogUnusable when it is not one."""
        for failures in count():
            try:
                note = await self._read()
                pictures = note is None and await self._notes.unexplained()
            except UnreadableNote as error:
                raise LogUnusable(self._refusal(str(error))) from None
            except (Retryable, Permanent) as error:
                self._waits(str(error))
                await asyncio.sleep(backoff_s(failures, first_s=FIRST_WAIT_S, cap_s=LONGEST_WAIT_S, draw=self._rng()))
                continue
            if note is not None:
                found = f"the public bucket notes {note.of.log_id}, epoch {note.of.epoch}, at event {note.position}"
                raise LogUnusable(self._refusal(found))
            if pictures:
                raise LogUnusable(self._refusal("the public bucket holds pictures that no stack's note accounts for"))
            self.trouble = ""
            return

    async def _read(self) -> LogNote | None:
        data = await self._notes.read()
        return None if data is None else decode(data)

    def _waits(self, reason: str) -> None:
        trouble = f"log: there is none here, and the public bucket cannot say whether there was one ({reason})"
        if trouble != self.trouble:
            _log.warning("log.not_begun_yet", path=str(self._path), reason=reason)
        self.trouble = trouble

    def _refusal(self, found: str) -> str:
        return f"the event log {self._path} is missing, but {found}: {PUT_BACK}"
