"""Waiting for a condition with a deadline: the only way a test here waits for anything."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Hopeless(AssertionError):
    """Raised by a condition that can no longer come true: the wait ends at once."""


async def eventually(
    condition: Callable[[], T | Awaitable[T]], deadline_s: float = 10.0, *, what: str = "", every_s: float = 0.02
) -> T:
    """The first true value of `condition`, which may be a coroutine function. Fails the test, saying what was awaited.

    An AssertionError in the condition counts as "not yet"; the last one is shown when the deadline passes.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while True:
        last: object
        try:
            value = condition()
            result: T = await value if inspect.isawaitable(value) else value
            if result:
                return result
            last = result
        except Hopeless:
            raise
        except AssertionError as error:
            last = error
        if loop.time() >= end:
            raise AssertionError(_complaint(condition, deadline_s, what, last))
        await asyncio.sleep(every_s)


def until(condition: Callable[[], T], deadline_s: float = 10.0, *, what: str = "", every_s: float = 0.05) -> T:
    """The same for tests without an event loop: they drive real processes."""
    end = time.monotonic() + deadline_s
    while True:
        last: object
        try:
            result = condition()
            if result:
                return result
            last = result
        except Hopeless:
            raise
        except AssertionError as error:
            last = error
        if time.monotonic() >= end:
            raise AssertionError(_complaint(condition, deadline_s, what, last))
        time.sleep(every_s)


def _complaint(condition: object, deadline_s: float, what: str, last: object) -> str:
    name = what or getattr(condition, "__qualname__", repr(condition))
    return f"not within {deadline_s:g} s: {name}; last seen: {last!r}"
