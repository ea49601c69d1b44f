"""Keeps the note of the log in the public bucket, and compares the log with it.

The note is compared at start, once a minute and when core drains, and written where it differs. Core ends when its log
is older than the note, or is not the log that the note names, unless `init` or `restore` made it. A new log accepts
nothing before the note names it: if its folder were lost without a note, the next start would look like a first start.
"""

import asyncio
from dataclasses import replace
from typing import Final

import structlog

from core.context import Context
from core.domain.provenance import GO_ON, Claim, LogNote, Provenance, UnreadableNote, decode, encode, refusal
from core.errors import LogBroken, LogUnusable, VersionConflict
from core.ports import Lineage, PublicNotes
from infra.retry import Backoff, Permanent, Retryable

_log = structlog.get_logger()
EVERY_S: Final = 60.0
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 15.0
"""The longest pause after a failed attempt; while a start waits for the note of a new log, `START_LOOK_S`."""
FINISH_S: Final = 2.0
START_LOOK_S: Final = 5.0
"""The longest time that a start with an existing log waits for the bucket."""


class NoteUpdater:
    """Compares and writes the note of one log. Its wall-clock time is for people; no decision uses it."""

    def __init__(self, log: Lineage, notes: PublicNotes, context: Context) -> None:
        self._log = log
        self._notes = notes
        self._wall_ms = context.wall_ms
        self._rng = context.rng
        self._failing = ""

    @property
    def trouble(self) -> str:
        """Why core is not ready: the public note does not name this new log yet. Empty otherwise."""
        if not self._must_note:
            return ""
        return f"log: just begun, and not noted in the public bucket yet ({self._failing or 'in progress'})"

    @property
    def _must_note(self) -> bool:
        note = self._log.note
        return note.of.claim is not Claim.NOTED and not note.position

    async def introduce(self) -> None:
        """Call before anything is accepted. Retries until a new log is noted, however long that takes; compares any
        other log once with its note. Raises LogUnusable when this log must not continue.
        """
        backoff = Backoff(first_s=FIRST_WAIT_S, cap_s=START_LOOK_S, rng=self._rng)
        while self._must_note:
            if not await self._attempt():
                await backoff.pause()
        try:
            async with asyncio.timeout(START_LOOK_S):
                await self._attempt()
        except TimeoutError:
            self._failed("no answer in time")

    async def run(self) -> None:
        """Update the note every minute. Never returns. Raises LogUnusable once another core has noted its log."""
        backoff = Backoff(first_s=FIRST_WAIT_S, cap_s=LONGEST_WAIT_S, rng=self._rng)
        while True:
            if await self._attempt():
                backoff.reset()
                await asyncio.sleep(EVERY_S)
            else:
                await backoff.pause()

    async def finish(self) -> None:
        """Note the last position of a draining core; gives up after `FINISH_S`."""
        try:
            async with asyncio.timeout(FINISH_S):
                await self._attempt()
        except TimeoutError:
            self._failed("no answer in time")

    async def _attempt(self) -> bool:
        try:
            await self._update()
        except (LogUnusable, LogBroken, VersionConflict):
            raise
        except (Retryable, Permanent) as error:
            self._failed(str(error))
            return False
        self._failing = ""
        return True

    def _failed(self, reason: str) -> None:
        if reason != self._failing:
            _log.warning("log.not_noted", reason=reason)
        self._failing = reason

    async def _update(self) -> None:
        found = await self._found()
        own = self._log.note
        of = own.of if found is None else await self._judged(own, found)
        if found is None or not found.of.same(of) or found.position != own.position:
            await self._notes.write(encode(replace(own, of=of), at_ms=self._wall_ms()))
        if of != own.of or of.claim is not Claim.NOTED:
            await self._log.noted(replace(of, claim=Claim.NOTED))

    async def _found(self) -> LogNote | None:
        """The note to compare with; None when this log may write its own without a comparison. Raises LogUnusable."""
        data = await self._notes.read()
        claim = self._log.note.of.claim
        if data is None:
            if claim is Claim.NOTED:
                _log.warning("log.public_note_missing")
            return None
        try:
            return decode(data)
        except UnreadableNote as error:
            if claim is Claim.NEW:
                raise LogUnusable(f"{error}. {GO_ON}") from None
            _log.warning("log.public_note_unreadable")
            return None

    async def _judged(self, own: LogNote, found: LogNote) -> Provenance:
        """The identity with which the log continues. Raises LogUnusable."""
        if own.of.claim is Claim.TAKES_OVER:
            # The log branched off: its epoch must exceed the noted one, or the two histories would look the same.
            later = found.of.log_id == own.of.log_id and found.of.epoch >= own.of.epoch
            return replace(own.of, epoch=found.of.epoch + 1) if later else own.of
        chain = await self._log.chain_at(found.position)
        reason = refusal(own.of, found, own.position, lambda _: chain)
        if reason:
            raise LogUnusable(f"the event log {reason} by what is noted in the public bucket. {GO_ON}")
        return own.of
