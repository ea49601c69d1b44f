"""The records of one append: events, projection rows, prompts and idempotency keys. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.domain.events import Event, Prompts
from core.domain.projection import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event to append, with its version in its stream. The log assigns the position."""

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
    """One idempotency key of a tenant, with the generation and the body that were first submitted under it."""

    tenant: str
    key: str
    generation_id: str
    body_sha256: bytes
    expires_at_running_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """Written as a whole or not at all. `rows` replace the rows of the same generations. `erased`: the generations
    whose prompts are deleted and whose objects become due for deletion.
    """

    entries: Sequence[Entry]
    rows: Sequence[Rows]
    prompts: Sequence[PromptRow] = ()
    keys: Sequence[KeyRow] = ()
    erased: Sequence[str] = ()
