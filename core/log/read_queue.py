"""A bounded queue of one kind of reads for the log's reading thread, in which the tenants take turns.

aiosqlite alone would accept any number and run them in order of arrival, so one tenant's burst would delay all others.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from core.log.aiosqlite_private import SqliteThread
from core.log.connection import sqlite3
from infra.fairness import FairSemaphore, Full
from infra.retry import Retryable

T = TypeVar("T")


class ReadQueue:
    """At most `limit` reads at a time, of which at most `at_once` are with the thread."""

    def __init__(self, limit: int, *, at_once: int) -> None:
        self._semaphore = FairSemaphore(at_once, waiting=max(0, limit - at_once))

    async def read(self, thread: SqliteThread, tenant: str, question: "Callable[[sqlite3.Connection], T]") -> T:
        """The result of `question`. Raises Retryable when the queue is full: at once unless another tenant has at least
        two more reads waiting, or later when a tenant with fewer displaces this read.
        """
        try:
            await self._semaphore.acquire(tenant)
        except Full:
            raise Retryable("too many questions to the event log") from None
        loop = asyncio.get_running_loop()
        cancelled = False

        def answer(connection: "sqlite3.Connection") -> T:
            # A read that is cancelled while the thread has it cannot be taken back. It keeps its turn until the thread
            # reaches it, so that `at_once` stays true, and then reads nothing.
            try:
                if cancelled:
                    raise Retryable("the caller was cancelled")
                return question(connection)
            finally:
                loop.call_soon_threadsafe(self._semaphore.release)

        try:
            return await thread.run(answer)
        except asyncio.CancelledError:
            cancelled = True
            raise
