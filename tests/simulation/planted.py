"""Design bugs, planted one at a time into the production classes while a `with planted(name)` lasts.

A checker that finds nothing proves nothing: the simulator must find every one of these. They stand in
`planted_core`, `planted_dispatch`, `planted_erasure`, `planted_models` and `planted_worker`.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from infra.retry import Backoff

Plant = Callable[[Any, str, Callable[[Any], Any]], None]
"""Replaces an attribute of an owner by what the last argument makes of it."""

BUGS: dict[str, Callable[[Plant], None]] = {}


def bug(put: Callable[[Plant], None]) -> Callable[[Plant], None]:
    """Enters it under its name."""
    BUGS[put.__name__] = put
    return put


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The bug is in, until the end of the block."""
    with ExitStack() as stack:

        def plant(owner: Any, attribute: str, make: Callable[[Any], Any]) -> None:
            good = getattr(owner, attribute)
            setattr(owner, attribute, make(good))
            stack.callback(setattr, owner, attribute, good)

        BUGS[name](plant)
        yield


def never_again(_: Any) -> Any:
    """In place of `Backoff`: the pause after the first failure does not end."""
    return lambda **_: Backoff(first_s=1e9, cap_s=1e9, rng=lambda: 1.0)


def background(coroutine: Any) -> None:
    """What should have been awaited."""
    task = asyncio.get_running_loop().create_task(coroutine)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
