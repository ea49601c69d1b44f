"""The writing half of the SQLite log. Each transaction is one function, which runs on its caller's thread.

`sqlite_log` calls this on the log's own thread; the offline commands and the benchmark call it directly.
`hash_chain` chains each event to the one before, so that a later reader can prove that the log only grew.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Final, Protocol

from core.domain.projection import ImageRow
from core.domain.provenance import Provenance
from core.domain.records import PromptRow, Transaction
from core.errors import LogBroken, LogHeld, VersionConflict
from core.log import identity
from core.log.checkpoint import WAL_LIMIT_BYTES, WriteAheadLog
from core.log.connection import sqlite3, translated
from core.log.hash_chain import Row, read_head, rows_of
from core.log.tables import GENERATION_COLUMNS, IMAGE_COLUMNS
from core.ports import Deletion

# ruff: noqa: S608  (every inserted piece is a constant of this module)

KEYS_PER_SWEEP: Final = 1_000
SAVES_UNTIL_IDLE: Final = 2
"""The WAL file is emptied after this many saves of the running time (one a second) without an append between."""

_CHANGING: Final = ("status", "version", "started_at_ms", "finished_at_ms", "detail", "erased")
_IMAGE_CHANGING: Final = IMAGE_COLUMNS[2:]


def _quoted(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _marks(count: int) -> str:
    return ", ".join(repeat("?", count))


INSERT_EVENT: Final = f"INSERT INTO events VALUES ({_marks(8)})"
INSERT_GENERATION: Final = (
    f"INSERT INTO generations (position, {_quoted(GENERATION_COLUMNS)}) VALUES ({_marks(1 + len(GENERATION_COLUMNS))})"
)
UPDATE_GENERATION: Final = f"UPDATE generations SET {', '.join(f'{name} = ?' for name in _CHANGING)} WHERE id = ?"
INSERT_IMAGE: Final = f"INSERT INTO images ({_quoted(IMAGE_COLUMNS)}) VALUES ({_marks(len(IMAGE_COLUMNS))})"
UPDATE_IMAGE: Final = (
    f"UPDATE images SET ({_quoted(_IMAGE_CHANGING)}) = ({_marks(len(_IMAGE_CHANGING))}) "
    f'WHERE generation_id = ? AND "index" = ? AND ({_quoted(_IMAGE_CHANGING)}) IS NOT ({_marks(len(_IMAGE_CHANGING))})'
)
INSERT_PROMPT: Final = "INSERT INTO prompts VALUES (?, ?, ?, ?)"
INSERT_KEY: Final = (
    "INSERT INTO keys VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET generation_id = excluded.generation_id, "
    "body_sha256 = excluded.body_sha256, expires_at_running_ms = excluded.expires_at_running_ms "
    "WHERE keys.expires_at_running_ms <= ?"
)
DELETE_PROMPT: Final = "DELETE FROM prompts WHERE generation_id = ?"
PUT_DELETION: Final = "INSERT OR REPLACE INTO deletions VALUES (?, ?, ?)"

generation_values = attrgetter(*GENERATION_COLUMNS)
_changing_values = attrgetter(*_CHANGING, "id")
image_values = attrgetter(*IMAGE_COLUMNS)
_image_changing = attrgetter(*_IMAGE_CHANGING)
_key_values = attrgetter("tenant", "key", "generation_id", "body_sha256", "expires_at_running_ms")


def _nowhere(_: str) -> None:
    pass


def _unwatched() -> None:
    pass


class Note(Protocol):
    """A note of the head, outside the database. Each append writes it after its commit and before it returns."""

    def write(self, position: int, chain: bytes) -> None:
        """Replace the note. Raises LogBroken when the disk fails."""


class LogWriter:
    """Appends to one open database. It remembers the head, so the next append notices a write by another process.

    `reach` is called at the failpoints. `in_place` is called before each commit, and raises LogBroken when a file was
    replaced.
    """

    def __init__(
        self,
        connection: "sqlite3.Connection",
        reach: Callable[[str], None] = _nowhere,
        *,
        notes: Sequence[Note] = (),
        in_place: Callable[[], None] = _unwatched,
        wal_limit_bytes: int = WAL_LIMIT_BYTES,
    ) -> None:
        self._connection = connection
        self._reach = reach
        self._notes = notes
        self._in_place = in_place
        self._wal = WriteAheadLog(connection, limit_bytes=wal_limit_bytes)
        self._broken = ""
        self._saves_since_append = 0
        self._emptied = False
        self._erased = False
        self._saves_since_erasure = 0
        self.head = read_head(connection)

    def append(self, transaction: Transaction) -> None:
        """Write and sync all of it, or nothing. Raises as `ports.EventLog.append`, and Invalid for an invalid event."""
        rows, head = rows_of(transaction.entries, self.head)
        new = {row[1]: row[0] for row in rows if row[2] == 1}
        self._commit(lambda: self._write(transaction, rows, new))
        # In this order: the head moves after the commit, since a failed one leaves it; the note is written before the
        # caller is answered, since the next start finds the loss of an acknowledged event only by the note.
        self.head = head
        self._saves_since_append, self._emptied = 0, False
        if transaction.erased:
            self._erased, self._saves_since_erasure = True, 0
        self._write_note()
        self._checkpoint()
        self._reach("core.after_commit")

    def save_running_ms(self, running_ms: int) -> None:
        """Save the running time and delete expired idempotency keys. Also empties the WAL file, once when the log is
        idle, and under load too while the file may hold an erased prompt. Raises Retryable or LogBroken.

        A reader or a full disk may prevent the emptying. It is retried, each time after twice as many saves.
        """
        self._commit(lambda: self._save(running_ms))
        self._saves_since_append += 1
        doubled = self._saves_since_append.bit_count() == 1  # a power of two: each wait is twice the one before
        idle = not self._emptied and doubled and self._saves_since_append >= SAVES_UNTIL_IDLE
        self._saves_since_erasure += 1
        truncate = idle or (self._erased and self._saves_since_erasure.bit_count() == 1)
        self._checkpoint(truncate=truncate)
        emptied = truncate and not self._wal.size_bytes
        self._emptied |= emptied
        self._erased &= not emptied

    def write_deletions(self, put: Sequence[Deletion], done: Sequence[str]) -> None:
        """As `ports.Deletions.write_deletions`."""
        self._commit(lambda: self._put_deletions(put, done))
        self._checkpoint()

    def _put_deletions(self, put: Sequence[Deletion], done: Sequence[str]) -> None:
        many = self._connection.executemany
        many(PUT_DELETION, [(each.generation_id, each.due_running_ms, each.looks) for each in put])
        many("DELETE FROM deletions WHERE generation_id = ?", [(each,) for each in done])

    def set_provenance(self, of: Provenance) -> None:
        """Store the provenance, durably. Raises as `append`."""
        self._commit(lambda: identity.write(self._connection, of))

    @property
    def wal_bytes(self) -> int:
        """The size of the write-ahead log."""
        return self._wal.size_bytes

    def _write_note(self) -> None:
        try:
            for note in self._notes:
                note.write(self.head.position, self.head.chain)
        except LogBroken as problem:
            self._broken = str(problem)
            raise

    def _checkpoint(self, *, truncate: bool = False) -> None:
        """Checkpoint when one is due, or with `truncate`. The preceding commit is durable whatever happens here: a full
        disk or a reader only delays the checkpoint. Raises LogBroken and nothing else.
        """
        try:
            self._wal.measure()
            if truncate or self._wal.due:
                self._wal.checkpoint(truncate=truncate)
        except sqlite3.Error as error:
            problem = translated(error)
            if isinstance(problem, LogBroken):
                self._broken = str(problem)
                raise problem from error

    def _commit(self, write: Callable[[], None]) -> None:
        if self._broken:
            raise LogBroken(self._broken)
        if self._wal.full:
            self._checkpoint()
            if self._wal.full:
                raise LogHeld("a reader that does not end keeps the write-ahead log from being checkpointed")
        self._assert_in_place()
        connection = self._connection
        try:
            # IMMEDIATE takes the write lock now, so another process's lock is met before anything is written.
            connection.execute("BEGIN IMMEDIATE")
            write()
            self._reach("core.before_commit")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            problem = translated(error)
            self._roll_back(problem)
            raise problem from error
        except BaseException:
            self._roll_back(None)
            raise

    def _assert_in_place(self) -> None:
        try:
            self._in_place()
        except LogBroken as problem:
            self._broken = str(problem)
            raise

    def _roll_back(self, problem: Exception | None) -> None:
        """Returns only when certainly nothing was written; otherwise the log is broken, and LogBroken is raised.

        The head is read again: a failed COMMIT may have been written all the same, and another process may append.
        """
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            same = read_head(self._connection) == self.head
        except sqlite3.Error as error:
            same, problem = False, LogBroken(f"cannot roll back: {error}")
        if isinstance(problem, LogBroken):
            self._broken = str(problem)
            raise problem
        if not same and not isinstance(problem, VersionConflict):
            self._broken = "the log has grown by another hand, or a failed transaction was written"
            raise LogBroken(self._broken)

    def _write(self, transaction: Transaction, rows: Sequence[Row], new: Mapping[str, int]) -> None:
        many = self._connection.executemany
        many(INSERT_EVENT, rows)
        # A transaction may change a generation several times: only its last rows are written.
        latest = {each.generation.id: each for each in transaction.rows}.values()
        begun = [each for each in latest if each.generation.id in new]
        grown = [each for each in latest if each.generation.id not in new]
        many(INSERT_GENERATION, [(new[e.generation.id], *generation_values(e.generation)) for e in begun])
        many(INSERT_IMAGE, [image_values(image) for each in begun for image in each.images])
        if grown:
            found = many(UPDATE_GENERATION, [_changing_values(each.generation) for each in grown]).rowcount
            if found != len(grown):
                raise VersionConflict("rows of a generation that the log does not hold")
            many(UPDATE_IMAGE, [_image_update(image) for each in grown for image in each.images])
        many(INSERT_PROMPT, [_prompt_values(prompt) for prompt in transaction.prompts])
        self._write_keys(transaction)
        # In the same transaction as the event: an erased generation never has a prompt, whenever core is killed.
        many(DELETE_PROMPT, [(generation_id,) for generation_id in transaction.erased])
        many(PUT_DELETION, [(generation_id, 0, 0) for generation_id in transaction.erased])

    def _write_keys(self, transaction: Transaction) -> None:
        if not transaction.keys:
            return
        # Keys are swept once a second, so an expired one may still be there. Only an expired row is replaced.
        now = max((entry.running_ms for entry in transaction.entries), default=0)
        values = [(*_key_values(key), now) for key in transaction.keys]
        if self._connection.executemany(INSERT_KEY, values).rowcount != len(values):
            raise VersionConflict("an idempotency key that still holds was given again")

    def _save(self, running_ms: int) -> None:
        self._connection.execute("UPDATE meta SET value = ? WHERE key = 'running_ms'", (running_ms,))
        expired = "SELECT tenant, key FROM keys WHERE expires_at_running_ms <= ? LIMIT ?"
        self._connection.execute(
            f"DELETE FROM keys WHERE (tenant, key) IN ({expired})",
            (running_ms, KEYS_PER_SWEEP),
        )


def _prompt_values(row: PromptRow) -> Row:
    prompts = row.prompts
    return row.generation_id, row.salt, prompts.prompt, prompts.negative_prompt


def _image_update(image: ImageRow) -> Row:
    values = _image_changing(image)
    return (*values, image.generation_id, image.index, *values)
