"""What one append makes durable: events, projection rows, prompts and idempotency keys. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.domain.events import Event, Prompts
from core.domain.projection import Rows


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
    prompts: Prompts


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
