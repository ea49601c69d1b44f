"""The two kinds of failure that every adapter raises, and how to try again. Imports nothing heavy.

Errors::

    Exception
    ├── Retryable   unreachable, throttled, answered 5xx, timed out, not there yet: the same call may succeed later
    │   └── Missing the queue or bucket itself does not exist: the same call may succeed once that is created
    └── Permanent   refused for a reason that does not pass by itself

Any module may import this one; adapters translate their library's errors into these.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Retryable(Exception):
    """The same call may succeed later. The text names no host, key or content."""


class Missing(Retryable):
    """The queue or bucket itself does not exist; the call can succeed once it is created."""


class Permanent(Exception):
    """The same call will fail again."""


def error_text(error: BaseException) -> str:
    """The error's text, or the name of its class where that is empty; for logs and readiness."""
    return str(error) or type(error).__name__


def backoff_s(attempt: int, *, first_s: float, cap_s: float, draw: float) -> float:
    """Full jitter: a share `draw` (0 to 1) of min(cap, first * 2**attempt); attempt counts from 0.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return draw * min(cap_s, first_s * 2.0 ** min(attempt, 60))


class Backoff:
    """The pauses of an endless loop after attempts that fail: they grow, with full jitter, until one succeeds.

    `rng` gives numbers from 0 to 1.
    """

    def __init__(self, *, first_s: float, cap_s: float, rng: Callable[[], float]) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self._rng = rng
        self._failures = 0

    def reset(self) -> None:
        """An attempt has succeeded: the next failure counts as the first."""
        self._failures = 0

    async def pause(self) -> None:
        """Sleep after an attempt that failed."""
        pause_s = backoff_s(self._failures, first_s=self._first_s, cap_s=self._cap_s, draw=self._rng())
        self._failures += 1
        await asyncio.sleep(pause_s)


async def retry(
    call: Callable[[], Awaitable[T]],
    *,
    attempts: int | None,
    first_s: float = 0.2,
    cap_s: float = 10.0,
    rng: Callable[[], float],
    on_retry: Callable[[int, Retryable], None] | None = None,
) -> T:
    """The result of `call`, repeated after Retryable with full-jitter back-off.

    `attempts` bounds the number of calls, None repeats until cancelled; the last Retryable is raised.
    `rng` gives numbers from 0 to 1. `on_retry` is called with the number of calls made and the error.
    """
    made = 0
    while True:
        try:
            return await call()
        except Retryable as error:
            made += 1
            if attempts is not None and made >= attempts:
                raise
            if on_retry is not None:
                on_retry(made, error)
        await asyncio.sleep(backoff_s(made - 1, first_s=first_s, cap_s=cap_s, draw=rng()))
