"""`python -m core dead-letters`: the command for `dead_letters`. `core.__main__` calls `run`; core may be running."""

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import TextIO

from core.dispatch.dead_letters import DeadLetter, DeadLetters
from infra.retry import Permanent, Retryable

_MOST = 100_000


def run(arguments: Sequence[str], opened: Callable[[], AbstractAsyncContextManager[DeadLetters]]) -> int:
    """The exit code: 0 success, 1 some letters could not be moved or deleted, 2 the queues cannot be reached."""
    options = _options(arguments)
    try:
        return asyncio.run(_carry_out(options, opened, sys.stdout))
    except (Retryable, Permanent) as error:
        complaint = f"darkroom: the queues cannot be reached ({error}): set the AWS_* variables as for core"
        print(complaint, file=sys.stderr)
    return 2


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m core dead-letters",
        description="What is on the dead-letter queue, without prompts. Every few seconds a running core takes off "
        "the jobs that it can read, and hides all letters for a second meanwhile: list again if any is missing. "
        "Send back replies, and what an older release did not understand. Wants core's environment.",
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=("list", "send-back", "discard"),
        default="list",
        help="send-back: each to the queue it belongs on, as far as it can be read; discard: all of them, for good",
    )
    parser.add_argument("--most", type=_count, default=1_000, help="look at so many at most (default: 1000)")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= _MOST):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MOST}")
    return int(text)


async def _carry_out(
    options: argparse.Namespace, opened: Callable[[], AbstractAsyncContextManager[DeadLetters]], out: TextIO
) -> int:
    async with opened() as letters:
        try:
            found = await letters.look(options.most)
            for each in found:
                print(_line(each), file=out)
            return await _act(letters, found, options.action, out)
        finally:
            await letters.release()


async def _act(letters: DeadLetters, found: Sequence[DeadLetter], action: str, out: TextIO) -> int:
    readable = [each for each in found if each.origin]
    asked, done, moved = 0, 0, ""
    if action == "send-back":
        asked, done = len(readable), await letters.send_back(readable)
        moved = f"{done} sent back, "
    elif action == "discard":
        asked, done = len(found), await letters.discard(found)
        moved = f"{done} discarded, "
    print(f"{len(found)} letter{'s'[: len(found) != 1]}: {moved}{len(found) - len(readable)} unreadable", file=out)
    return 0 if done == asked else 1


def _line(letter: DeadLetter) -> str:
    sent = datetime.fromtimestamp(letter.received.sent_at_ms / 1000, tz=UTC)
    return f"{sent:%Y-%m-%dT%H:%M:%SZ}  {len(letter.received.body):>6} bytes  {letter.about}"
