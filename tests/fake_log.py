"""An event log and its projection in memory, with the interface of `core.log.sqlite_log.SqliteLog`.

Passes the conformance suite in tests/conformance/test_event_log.py. Events go through the real codec, so that the real
log accepts whatever this one accepts. Attributes switch faults on and off.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from core.domain.events import TERMINAL_TYPES, Recorded
from core.domain.projection import Rows
from core.domain.provenance import Claim, LogNote, Provenance
from core.domain.records import KeyRow, PromptRow, Transaction
from core.errors import LogBroken, LogFull, VersionConflict
from core.log.codec import decode, encode, type_of
from core.ports import Deletion, Ended
from infra.retry import Retryable


@dataclass
class FakeLog:
    """`full`: writes of any kind raise LogFull. `held`: they raise Retryable. `broken`: they raise LogBroken.

    `unreadable`: reads of prompts and keys raise Retryable.

    `gate`: appends wait until it is set. `saving_gate`: `save_running_ms` waits until it is set.
    """

    events: list[tuple[Recorded, bytes]] = field(default_factory=list)
    running_ms: int = 0
    full: bool = False
    held: bool = False
    broken: bool = False
    unreadable: bool = False
    appends: int = 0
    of: Provenance = Provenance(log_id="log_0123456789abcdef", epoch=1, claim=Claim.NEW)  # noqa: RUF009  (immutable)
    gate: asyncio.Event | None = None
    saving_gate: asyncio.Event | None = None
    _chain: list[bytes] = field(default_factory=lambda: [bytes(32)])
    to_delete: dict[str, Deletion] = field(default_factory=dict)
    _streams: dict[str, list[int]] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    _rows: dict[str, Rows] = field(default_factory=dict)
    _prompts: dict[str, PromptRow] = field(default_factory=dict)
    _keys: dict[tuple[str, str], KeyRow] = field(default_factory=dict)

    async def append(self, transaction: Transaction) -> None:
        if self.gate is not None:
            await self.gate.wait()
        self._raise_faults()
        sealed = [encode(entry.event) for entry in transaction.entries]
        self._assert_fits(transaction)
        for entry, data in zip(transaction.entries, sealed, strict=True):
            place = len(self.events) + 1
            event = Recorded(
                position=place,
                generation_id=entry.generation_id,
                version=entry.version,
                at_ms=entry.at_ms,
                running_ms=entry.running_ms,
                event=entry.event,
            )
            self.events.append((event, data))
            self._chain.append(blake2b(self._chain[-1] + data, digest_size=32).digest())
            self._streams.setdefault(entry.generation_id, []).append(place)
            if type_of(entry.event) in TERMINAL_TYPES:
                self._ended.add(entry.generation_id)
        self._rows.update({rows.generation.id: rows for rows in transaction.rows})
        self._prompts.update({row.generation_id: row for row in transaction.prompts})
        self._keys.update({(row.tenant, row.key): row for row in transaction.keys})
        for generation_id in transaction.erased:
            self._prompts.pop(generation_id, None)
            self.to_delete[generation_id] = Deletion(generation_id=generation_id)
        self.appends += 1

    def _raise_faults(self) -> None:
        if self.broken:
            raise LogBroken("broken by the test")
        if self.full:
            raise LogFull("full by the test")
        if self.held:
            raise Retryable("held by the test")

    def _raise_unreadable(self) -> None:
        if self.unreadable:
            raise Retryable("unreadable by the test")

    def _assert_fits(self, transaction: Transaction) -> None:
        versions = {generation_id: len(places) for generation_id, places in self._streams.items()}
        ended = set(self._ended)
        for entry in transaction.entries:
            if entry.version <= versions.get(entry.generation_id, 0):
                raise VersionConflict(f"{entry.generation_id} has version {entry.version} already")
            versions[entry.generation_id] = entry.version
            if type_of(entry.event) in TERMINAL_TYPES:
                if entry.generation_id in ended:
                    raise VersionConflict(f"{entry.generation_id} has ended already")
                ended.add(entry.generation_id)
        now = max((entry.running_ms for entry in transaction.entries), default=0)
        for key in transaction.keys:
            held = self._keys.get((key.tenant, key.key))
            if held is not None and held.expires_at_running_ms > now:
                raise VersionConflict("an idempotency key that still holds was given again")
        if any(rows.generation.id not in versions for rows in transaction.rows):
            raise VersionConflict("rows of a generation that the log does not hold")

    async def stream(self, generation_id: str) -> Sequence[Recorded]:
        return [self._recorded(place) for place in self._streams.get(generation_id, [])]

    def _recorded(self, place: int) -> Recorded:
        event, data = self.events[place - 1]
        assert decode(data) == event.event
        return event

    async def open_streams(self) -> AsyncIterator[Sequence[Recorded]]:
        for generation_id in list(self._streams):
            if generation_id not in self._ended:
                yield await self.stream(generation_id)

    async def save_running_ms(self, running_ms: int) -> None:
        if self.saving_gate is not None:
            await self.saving_gate.wait()
        self._raise_faults()
        self.running_ms = running_ms
        self._keys = {k: row for k, row in self._keys.items() if row.expires_at_running_ms > running_ms}

    @property
    def note(self) -> LogNote:
        return LogNote(of=self.of, position=len(self.events), chain=self._chain[-1])

    async def chain_at(self, position: int) -> bytes | None:
        return self._chain[position] if position < len(self._chain) else None

    async def noted(self, of: Provenance) -> None:
        self._raise_faults()
        self.of = of

    @property
    def began_empty(self) -> bool:
        return not self.events  # the real one answers as of its opening; core asks at its start only

    async def deletions(self, running_ms: int, limit: int) -> Sequence[Deletion]:
        due = [each for each in self.to_delete.values() if each.due_running_ms <= running_ms]
        return sorted(due, key=lambda each: each.due_running_ms)[:limit]

    async def write_deletions(self, put: Sequence[Deletion], done: Sequence[str] = ()) -> None:
        self._raise_faults()
        self.to_delete |= {each.generation_id: each for each in put}
        for generation_id in done:
            self.to_delete.pop(generation_id, None)

    async def events_of(self, generation_id: str) -> Sequence[Recorded]:
        return await self.stream(generation_id)

    async def ended(self, *, after: int, until_running_ms: int, window: int) -> tuple[Sequence[Ended], int]:
        found = []
        for generation_id, places in self._streams.items():
            row, first = self._rows[generation_id].generation, self.events[places[0] - 1][0]
            here = after < places[0] <= after + window and first.running_ms <= until_running_ms
            if here and generation_id in self._ended and not row.erased:
                found.append(
                    Ended(
                        position=places[0],
                        generation_id=generation_id,
                        tenant=row.tenant,
                        finished_at_ms=row.finished_at_ms,
                        finished_running_ms=self.events[places[-1] - 1][0].running_ms,
                    )
                )
        more = after + window <= len(self.events) and self.events[after + window - 1][0].running_ms <= until_running_ms
        return found, after + window if more else 0

    async def not_erased(self, generation_ids: Sequence[str]) -> Sequence[str]:
        return [each for each in generation_ids if each in self._rows and not self._rows[each].generation.erased]

    async def known(self, generation_ids: Sequence[str]) -> Collection[str]:
        return [each for each in generation_ids if each in self._streams]

    async def rows(self, generation_ids: Sequence[str], *, asker: str = "") -> Mapping[str, Rows]:
        return {each: self._rows[each] for each in generation_ids if each in self._rows}

    async def page(
        self, tenant: str, *, before: int, limit: int, status: int, looks: int
    ) -> tuple[Sequence[Rows], int]:
        own = [
            (self._rows[generation_id], places[0])
            for generation_id, places in reversed(self._streams.items())
            if self._rows[generation_id].generation.tenant == tenant and (not before or places[0] < before)
        ]
        found = [(rows, place) for rows, place in own[:looks] if status in (0, rows.generation.status)]
        shown = found[:limit]
        beyond = own[looks][1] + 1 if len(own) > looks else 0
        return [rows for rows, _ in shown], shown[-1][1] if len(found) > limit else beyond

    async def prompts(self, generation_ids: Sequence[str]) -> Mapping[str, PromptRow]:
        self._raise_unreadable()
        return {each: self._prompts[each] for each in generation_ids if each in self._prompts}

    async def keys(self, wanted: Sequence[tuple[str, str]], running_ms: int) -> Mapping[tuple[str, str], KeyRow]:
        self._raise_unreadable()
        held = {pair: self._keys[pair] for pair in wanted if pair in self._keys}
        return {pair: row for pair, row in held.items() if row.expires_at_running_ms > running_ms}
