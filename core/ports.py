"""What core needs from the world, in core's words. Adapters fit structurally; `app.py` joins them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.events import Event, Recorded
from core.views import Rows
from schema import pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event about to be appended: `version` is the one it will have in its stream."""

    generation_id: str
    version: int
    at_ms: int
    running_ms: int
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow:
    """The personal part of a generation, kept apart from its events; `salt` is the HMAC's key."""

    generation_id: str
    salt: bytes
    prompts: pb.Prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One idempotency key of one tenant, and what was first submitted under it."""

    tenant: str
    key: str
    generation_id: str
    body_sha256: bytes
    expires_at_running_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What is written together or not at all. `rows` replace those of the same generation."""

    entries: Sequence[Entry]
    rows: Sequence[Rows]
    prompts: Sequence[PromptRow] = ()
    keys: Sequence[KeyRow] = ()
    erased: Sequence[str] = ()


class EventLog(Protocol):
    """The truth: an append-only log of events with the projection written in the same transaction.

    Only the writer calls `append`, one call at a time, and never cancels it.
    """

    async def append(self, transaction: Transaction) -> None:
        """Make the transaction durable. Raises LogFull (nothing written), VersionConflict or LogBroken."""

    async def stream(self, generation_id: str) -> Sequence[Recorded]:
        """All events of one generation in order; empty when there is none. Raises LogBroken for damaged bytes."""

    def open_streams(self) -> AsyncIterator[Sequence[Recorded]]:
        """The streams that have no terminal event, one by one, in the order of their first events."""

    async def save_running_ms(self, running_ms: int) -> None:
        """Persist core's running time; called every second."""


class Projection(Protocol):
    """What can be asked of the log's tables. Reads see every append that has returned."""

    async def rows(self, generation_ids: Sequence[str]) -> Mapping[str, Rows]:
        """The rows of those generations that exist."""

    async def page(self, tenant: str, *, before: int, limit: int, status: int) -> tuple[Sequence[Rows], int]:
        """Up to `limit` generations of a tenant, newest first, begun before log position `before` (0: from the
        newest), with this status (0: any); and the position to go on from (0: no more).
        """

    async def prompts(self, generation_ids: Sequence[str]) -> Mapping[str, PromptRow]:
        """The prompts of those generations that exist and are not erased."""

    async def keys(self, wanted: Sequence[tuple[str, str]], running_ms: int) -> Mapping[tuple[str, str], KeyRow]:
        """The unexpired rows of those (tenant, key) that exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message to be sent: sealed bytes and text attributes (trace context)."""

    body: bytes
    attributes: Mapping[str, str]


class Received(Protocol):
    """A message as it came from the queue."""

    @property
    def receipt(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...
    @property
    def receive_count(self) -> int: ...
