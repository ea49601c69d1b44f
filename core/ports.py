"""What core needs from the outside, in core's words. Adapters fit structurally; `app.py` joins them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.domain.events import Recorded
from core.domain.projection import Rows
from core.domain.provenance import LogNote, Provenance
from core.domain.records import KeyRow, PromptRow, Transaction
from core.domain.transaction import DurableListener

Rng = Callable[[], float]
"""Returns a random number from 0 (inclusive) to 1 (exclusive)."""


class EventLog(Protocol):
    """The source of truth: an append-only log of events, with the projection written in the same transaction.

    Only the writer calls `append`, one call at a time, and never cancels it.
    """

    async def append(self, transaction: Transaction) -> None:
        """Make the transaction durable. Raises Retryable, such as LogFull, when nothing was written; VersionConflict or
        LogBroken when core cannot continue.
        """

    def open_streams(self) -> AsyncIterator[Sequence[Recorded]]:
        """The streams that have no terminal event, one by one, in the order of their first events."""


class WriterReads(Protocol):
    """What the writer looks up in the log before it decides. Only the writer calls these, and only between two
    appends, so they run on the connection of the appends and do not wait for reads of `Projection`.
    """

    async def stream(self, generation_id: str) -> Sequence[Recorded]:
        """All events of one generation in order; empty when there is none. Raises LogBroken for damaged bytes."""

    async def known(self, generation_ids: Sequence[str]) -> Collection[str]:
        """Those of the generations that the log holds."""

    async def keys(self, wanted: Sequence[tuple[str, str]], running_ms: int) -> Mapping[tuple[str, str], KeyRow]:
        """The unexpired rows of those (tenant, key) that exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """An erased generation's objects, to be deleted from `due_running_ms` on, confirmed by the store `looks` times."""

    generation_id: str
    due_running_ms: int = 0
    looks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A generation that has ended and is not erased; the two times are those of its end."""

    position: int
    generation_id: str
    tenant: str
    finished_at_ms: int
    finished_running_ms: int


class Deletions(Protocol):
    """The log's table of pending deletions of objects. `append` adds each generation that it erases, due at once. Reads
    see every append that has returned; each raises Retryable.
    """

    async def deletions(self, running_ms: int, limit: int) -> Sequence[Deletion]:
        """Up to `limit` deletions that are due by this running time, the longest due first."""

    async def write_deletions(self, put: Sequence[Deletion], done: Sequence[str] = ()) -> None:
        """Durably replace the deletions of these generations, and remove those of `done`."""

    async def events_of(self, generation_id: str) -> Sequence[Recorded]:
        """All events of one generation."""


class Retained(Protocol):
    """The ended generations that the log still holds. Each call raises Retryable."""

    async def ended(self, *, after: int, until_running_ms: int, window: int) -> tuple[Sequence[Ended], int]:
        """The ended generations that began in the `window` log positions after `after` and were requested by this
        running time; and the position to continue from, 0 when no more were requested by then.
        """

    async def not_erased(self, generation_ids: Sequence[str]) -> Sequence[str]:
        """Those of the generations that the log holds and has not erased."""

    @property
    def began_empty(self) -> bool:
        """Whether the log held no event when it was opened."""


class ErasureList(Protocol):
    """The ids of all generations ever erased, and nothing else. It is kept outside the log, so it survives the loss of
    the log's folder, and core erases again what a restored log still holds of them.
    """

    async def note(self, generation_ids: Sequence[str]) -> None:
        """Add the ids, durably. Raises Retryable or Permanent; then any of them may or may not be on the list."""

    def noted(self, *, fresh: bool) -> AsyncIterator[Sequence[str]]:
        """All ids, in batches, including those that only another copy of the list has. `fresh`: the log is empty and
        holds nothing to erase, so other copies need not be read. Raises Retryable or Permanent.
        """


class Upkeep(Protocol):
    """Core's running time, which the log keeps beside its events. May be called while an append is running."""

    @property
    def running_ms(self) -> int:
        """The latest running time in the log when it was opened; 0 for a new log."""

    async def save_running_ms(self, running_ms: int) -> None:
        """Persist core's running time; called every second. Raises Retryable or LogBroken. The log may use the call to
        drop expired idempotency keys and, when idle, to checkpoint its write-ahead log.
        """


class Projection(Protocol):
    """Reads of the log's tables, for every part but the writer. They see every append that has returned, and raise
    Retryable when too many are waiting.
    """

    async def rows(self, generation_ids: Sequence[str], *, asker: str = "") -> Mapping[str, Rows]:
        """The rows of those generations that exist. `asker`: the tenant; when many ask, tenants take turns."""

    async def page(
        self, tenant: str, *, before: int, limit: int, status: int, looks: int
    ) -> tuple[Sequence[Rows], int]:
        """Up to `limit` generations of a tenant, newest first, begun before log position `before` (0: from the
        newest), with this status (0: any); and the position to continue from (0: no more).

        Looks at no more than `looks` of them: a page may hold fewer than `limit`, or none, and not be the last.
        """

    async def prompts(self, generation_ids: Sequence[str]) -> Mapping[str, PromptRow]:
        """The prompts of those generations that exist and are not erased."""


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


class JobQueue(Protocol):
    """A queue that core sends to: the jobs queue, or the dead-letter queue."""

    async def send(self, messages: Sequence[Outgoing]) -> list[bool]:
        """For each message, whether the queue accepted it. Raises Retryable when that is unknown."""


class ReplyQueue(Protocol):
    """Where workers answer."""

    async def receive(self, *, limit: int, wait_s: int, visibility_s: int) -> Sequence[Received]:
        """Up to `limit` (at most 10) messages, waiting up to `wait_s` for the first. Raises Retryable."""

    async def delete(self, receipts: Sequence[str]) -> list[bool]:
        """For each receipt, whether its message is gone. Raises Retryable."""


class Stored(Protocol):
    """The metadata of a stored object. `sha256` is None when the store does not know it."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def sha256(self) -> bytes | None: ...


class TempStore(Protocol):
    """The temporary bucket, where workers put pictures. Each call raises Retryable while it cannot be reached."""

    async def head(self, key: str) -> Stored | None: ...
    async def get(self, key: str) -> bytes | None: ...
    async def delete(self, keys: Sequence[str]) -> None: ...
    def keys(self, prefix: str) -> AsyncIterator[str]: ...


class PublicStore(Protocol):
    """The public bucket. Each call raises Retryable while it cannot be reached."""

    async def copy_from_temp(self, temp_key: str, key: str, *, content_type: str) -> bool:
        """Copy within the store; False when there is no such temporary object."""

    async def head(self, key: str) -> Stored | None: ...
    async def delete(self, keys: Sequence[str]) -> None: ...


class Lineage(Protocol):
    """The log's identity, which tells it from other logs and from older copies of itself."""

    @property
    def note(self) -> LogNote:
        """The note that describes the log now: its provenance, and its last durable event."""

    async def chain_at(self, position: int) -> bytes | None:
        """The chain hash of the event at a position; None beyond the end."""

    async def noted(self, of: Provenance) -> None:
        """Store `of`, the provenance that the public note now names. Raises Retryable or LogBroken."""


class PublicNotes(Protocol):
    """The log's note in the public bucket. Each raises Retryable if that is unreachable, Permanent if it refuses."""

    async def read(self) -> bytes | None:
        """The note of this stack; None when there is none."""

    async def write(self, note: bytes) -> None:
        """Put the note of this stack there."""

    async def unexplained(self) -> bool:
        """Whether the bucket holds pictures, but no note of any stack."""


class Failpoints(Protocol):
    """Named places where a test may kill or delay the process."""

    async def reach(self, name: str) -> None: ...


class ReceivedDeadLetter(Received, Protocol):
    """A received dead letter, with the queue's id for it and its send time in Unix milliseconds."""

    @property
    def message_id(self) -> str: ...
    @property
    def sent_at_ms(self) -> int: ...


class DeadLetterQueue(Protocol):
    """The dead-letter queue. Each call raises Retryable or Permanent."""

    async def receive(self, *, limit: int, wait_s: int, visibility_s: int) -> Sequence[ReceivedDeadLetter]:
        """Up to `limit` (at most 10) messages, hidden from others for `visibility_s`."""

    async def delete(self, receipts: Sequence[str]) -> Sequence[bool]:
        """For each receipt, whether its message is gone."""

    async def extend(self, receipts: Sequence[str], visibility_s: int) -> Sequence[bool]:
        """Hide each message for `visibility_s` from now; 0: visible at once. False: the receipt is no longer valid."""


class WriterLog(EventLog, WriterReads, Protocol):
    """The log as the writer uses it."""


class Log(WriterLog, Projection, Upkeep, Lineage, Deletions, Retained, Protocol):
    """One log, seen from every side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Core's adapters. `quarantine` and `dead_letters` are two sides of one queue. `make` creates missing queues and
    buckets; `new_token` gives 128 random bits or more, `new_salt` 16 random bytes.
    """

    log: Log
    jobs: JobQueue
    replies: ReplyQueue
    quarantine: JobQueue
    dead_letters: DeadLetterQueue
    temp: TempStore
    public: PublicStore
    notes: PublicNotes
    erasures: ErasureList
    make: Callable[[], Awaitable[None]]
    failpoints: Failpoints
    wall_ms: Callable[[], int]
    new_token: Callable[[], str]
    new_salt: Callable[[], bytes]
    rng: Rng
    durable: DurableListener = lambda *_: None
    """Called with the events of each durable transaction, to log them."""
    log_tail_bytes: Callable[[], int] = int
    """Size of the write-ahead log, for metrics."""
