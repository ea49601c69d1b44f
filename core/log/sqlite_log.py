"""The event log and its projection on SQLite: the adapter for `ports.Log`.

Only `app.py` knows it, and opens it with `async with`. It has a writing and a reading connection, each on a thread of
its own, so no read waits for a sync. The writer's own reads use the writing connection, which is idle until the writer
has decided; so no decision waits for other reads. A transaction runs as one function on the thread, so a cancelled
caller leaves nothing half done.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from core.domain.events import Recorded
from core.domain.projection import Rows
from core.domain.provenance import LogNote, Provenance
from core.domain.records import KeyRow, PromptRow, Transaction
from core.errors import LogUnusable
from core.log import identity, queries, startup_checks
from core.log.aiosqlite_private import SqliteThread, assert_same_sqlite
from core.log.append import LogWriter
from core.log.checkpoint import WAL_LIMIT_BYTES
from core.log.connection import assert_version, open_file, sqlite3
from core.log.files import LogFiles
from core.log.head_note import HeadNote
from core.log.read_queue import ReadQueue
from core.log.root_note import RootNote
from core.ports import Deletion, Ended

STREAMS_PER_READ: Final = 200
MAX_QUESTIONS: Final = 10_000
"""Reads of rows that may wait. By default as many calls may wait for their generations to end, and all of them may then
read at once. At 0.1 to 0.3 ms each (measured, on two busy cores) that is one to three seconds of reading.
"""
MAX_PAGES: Final = 64
"""Reads of pages that may wait: 10 ms each, up to 80 ms where a page looks at 10,000 scattered rows."""


def _nowhere(_: str) -> None:
    pass


async def _at_once() -> None:
    pass


class SqliteLog:
    """One log in one file. `reach` is called at the failpoints core.before_commit and core.after_commit, on the thread.

    `root_note`: the file in the data folder that names the log which belongs here (`core.log.root_note`); None: no such
    note. `may_begin` is awaited before a log is begun where there is none; it returns, or raises LogUnusable.
    """

    def __init__(
        self,
        path: Path,
        *,
        root_note: Path | None = None,
        may_begin: Callable[[], Awaitable[None]] = _at_once,
        reach: Callable[[str], None] = _nowhere,
        wal_limit_bytes: int = WAL_LIMIT_BYTES,
        max_questions: int = MAX_QUESTIONS,
        max_pages: int = MAX_PAGES,
    ) -> None:
        self._files = LogFiles(path, root_note)
        self._root_note = RootNote(root_note)
        self._may_begin = may_begin
        self._questions = ReadQueue(max_questions, at_once=2)  # two: the thread has its next read when one ends
        self._pages = ReadQueue(max_pages, at_once=1)
        self._reach = reach
        self._wal_limit_bytes = wal_limit_bytes
        self._stack = AsyncExitStack()
        self._writing: SqliteThread
        self._reading: SqliteThread
        self._writer: LogWriter
        self._provenance: Provenance
        self.running_ms = 0
        """The latest running time that the log knows, once it is open. The clock continues from it."""
        self.began_empty = False
        """As `ports.Retained.began_empty`."""

    async def __aenter__(self) -> Self:
        """Open the log, or begin it. Raises LogUnusable.

        The order matters. Whether a log may be begun is decided before any file is made, and again under the lock. The
        files are inspected by a connection that cannot write before one is opened that can: closing that one, after a
        failed check, would checkpoint the write-ahead log and destroy what a damaged one still holds.
        """
        assert_version()
        assert_same_sqlite()
        async with AsyncExitStack() as stack:
            await self._decide_to_begin()
            self._files.acquire()
            stack.callback(self._files.release)
            # Again, under the lock: another process may have moved the files since.
            self._files.assert_present()
            inspected = await _on_own_thread(startup_checks.inspect, self._files)
            self._files.make_private()
            self._writing = await _connect(self._files.database, stack)
            notes = HeadNote(self._files.note), self._root_note
            for note in notes:
                stack.callback(note.close)
            self._writer = await self._writing.run(
                lambda connection: startup_checks.prepare(
                    connection,
                    self._files,
                    self._reach,
                    wal_limit_bytes=self._wal_limit_bytes,
                    inspected=inspected,
                    notes=notes,
                ),
            )
            self._provenance = await self._writing.run(startup_checks.provenance)
            self.running_ms = await self._writing.run(startup_checks.running_ms)
            self.began_empty = not self._writer.head.position
            self._reading = await _connect(self._files.database, stack)
            await self._reading.run(lambda connection: connection.execute("PRAGMA query_only = ON"))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the functions on the threads, and close. The last connection empties the WAL file."""
        await self._stack.aclose()

    async def _decide_to_begin(self) -> None:
        """Called before anything is created: an operator may have to move the missing folder back to this place."""
        try:
            self._files.assert_present()
            absent = self._files.absent
        except OSError as error:
            raise LogUnusable(startup_checks.cannot_open(self._files.database, error)) from None
        if absent or not await _on_own_thread(startup_checks.has_tables, self._files):
            startup_checks.require_place(self._files.database)
            await self._may_begin()

    @property
    def note(self) -> LogNote:
        """As `ports.Lineage.note`."""
        head = self._writer.head
        return LogNote(of=self._provenance, position=head.position, chain=head.chain)

    async def chain_at(self, position: int) -> bytes | None:
        """As `ports.Lineage.chain_at`."""
        return await self._reading.run(lambda connection: identity.chain_at(connection, position))

    async def noted(self, of: Provenance) -> None:
        """As `ports.Lineage.noted`."""

        def keep(_: "sqlite3.Connection") -> None:
            self._writer.set_provenance(of)
            head = self._writer.head
            self._root_note.begin(LogNote(of=of, position=head.position, chain=head.chain))

        await self._writing.run(keep)
        self._provenance = of

    @property
    def wal_bytes(self) -> int:
        """The size of the write-ahead log; more than a few MiB only while a reader does not end."""
        return self._writer.wal_bytes

    async def append(self, transaction: Transaction) -> None:
        """As `ports.EventLog.append`; Retryable (nothing written) while another process holds the database."""
        await self._writing.run(lambda _: self._writer.append(transaction))

    async def save_running_ms(self, running_ms: int) -> None:
        """As `ports.Upkeep.save_running_ms`. Also deletes expired idempotency keys, and empties an idle WAL file."""
        await self._writing.run(lambda _: self._writer.save_running_ms(running_ms))

    async def write_deletions(self, put: Sequence[Deletion], done: Sequence[str] = ()) -> None:
        """As `ports.Deletions.write_deletions`."""
        await self._writing.run(lambda _: self._writer.write_deletions(put, done))

    async def deletions(self, running_ms: int, limit: int) -> Sequence[Deletion]:
        """As `ports.Deletions.deletions`."""
        return await self._reading.run(lambda c: queries.deletions(c, running_ms, limit))

    async def events_of(self, generation_id: str) -> Sequence[Recorded]:
        """As `ports.Deletions.events_of`."""
        return await self._reading.run(lambda c: queries.stream(c, generation_id))

    async def ended(self, *, after: int, until_running_ms: int, window: int) -> tuple[Sequence[Ended], int]:
        """As `ports.Retained.ended`."""
        return await self._reading.run(
            lambda c: queries.ended(c, after=after, until_running_ms=until_running_ms, window=window),
        )

    async def not_erased(self, generation_ids: Sequence[str]) -> Sequence[str]:
        """As `ports.Retained.not_erased`."""
        return await self._reading.run(lambda c: queries.not_erased(c, generation_ids))

    async def stream(self, generation_id: str) -> Sequence[Recorded]:
        """As `ports.WriterReads.stream`."""
        return await self._writing.run(lambda connection: queries.stream(connection, generation_id))

    async def known(self, generation_ids: Sequence[str]) -> Collection[str]:
        """As `ports.WriterReads.known`."""
        return await self._writing.run(lambda connection: queries.known(connection, generation_ids))

    async def keys(self, wanted: Sequence[tuple[str, str]], running_ms: int) -> Mapping[tuple[str, str], KeyRow]:
        """As `ports.WriterReads.keys`."""
        return await self._writing.run(lambda connection: queries.keys(connection, wanted, running_ms))

    async def open_streams(self) -> AsyncIterator[Sequence[Recorded]]:
        """As `ports.EventLog.open_streams`."""
        after = 0
        while True:
            streams, after = await self._open_streams(after)
            for each in streams:
                yield each
            if len(streams) < STREAMS_PER_READ:
                return

    async def _open_streams(self, after: int) -> tuple[Sequence[Sequence[Recorded]], int]:
        return await self._reading.run(lambda c: queries.open_streams(c, after, STREAMS_PER_READ))

    async def rows(self, generation_ids: Sequence[str], *, asker: str = "") -> Mapping[str, Rows]:
        """As `ports.Projection.rows`."""
        return await self._questions.read(self._reading, asker, lambda c: queries.rows(c, generation_ids))

    async def page(
        self, tenant: str, *, before: int, limit: int, status: int, looks: int
    ) -> tuple[Sequence[Rows], int]:
        """As `ports.Projection.page`."""
        return await self._pages.read(
            self._reading,
            tenant,
            lambda c: queries.page(c, tenant, before=before, limit=limit, status=status, looks=looks),
        )

    async def prompts(self, generation_ids: Sequence[str]) -> Mapping[str, PromptRow]:
        """As `ports.Projection.prompts`. Never refused: API calls read rows first, and dispatch needs prompts."""
        return await self._reading.run(lambda c: queries.prompts(c, generation_ids))


async def _on_own_thread(look: Callable[[LogFiles], bool], files: LogFiles) -> bool:
    """The result of `look`, on a thread that ends with it."""
    with ThreadPoolExecutor(1, "log.inspect") as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, look, files)


async def _connect(path: Path, stack: AsyncExitStack) -> SqliteThread:
    try:
        thread = await SqliteThread.open(lambda: open_file(path))
    except sqlite3.Error as error:
        raise LogUnusable(startup_checks.cannot_open(path, error)) from None
    stack.push_async_callback(thread.close)
    await thread.run(lambda connection: startup_checks.set_pragmas(connection, path))
    return thread
