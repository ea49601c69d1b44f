"""`python -m loadtests.shares`: tenants that post without pause, and a quiet one beside them that keeps to its share.

On a stack of its own (real processes, emulated GPU) with a small backlog cap. The quiet tenant posts one image after
another and never has more than cap / tenants unfinished, so each must be accepted, and soon. The last line printed is
JSON; it ends with 0 only if all were accepted, and 99 of 100 within a second.
"""

import argparse
import asyncio
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import quantiles
from typing import Any

import aiohttp

from loadtests import stack as stacks

_BODY = {"prompt": "a red circle"}
_ENDED = {"succeeded", "failed", "cancelled", "expired"}
_CALL_S = 60.0


@dataclass(slots=True)
class Seen:
    """The answers that one kind of tenant got; `bounds` and `retry_after_s` are those of the 429s."""

    statuses: Counter[int] = field(default_factory=Counter)
    bounds: Counter[str] = field(default_factory=Counter)
    retry_after_s: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def p(self, percent: int) -> float:
        """A percentile of the answers' times, in seconds."""
        if len(self.seconds) < 2:
            return max(self.seconds, default=0.0)
        return quantiles(self.seconds, n=100, method="inclusive")[percent - 1]


class Tenant:
    """One tenant's calls."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str, seen: Seen) -> None:
        self._session, self._url, self._seen = session, url, seen
        self._headers = {"Authorization": f"Bearer {key}"}

    async def post(self) -> str | None:
        """POSTs a generation; its id, or None if it was refused."""
        begun = time.perf_counter()
        async with self._session.post(f"{self._url}/v1/generations", json=_BODY, headers=self._headers) as answer:
            body: dict[str, Any] = await answer.json()
        self._seen.seconds.append(time.perf_counter() - begun)
        self._seen.statuses[answer.status] += 1
        if answer.status == 429:
            self._seen.bounds[body["bound"]] += 1
            self._seen.retry_after_s[int(answer.headers["Retry-After"])] += 1
        return str(body["id"]) if answer.status == 202 else None

    async def ended(self, generation_id: str, wait_s: int) -> bool:
        """Whether it has ended, after waiting for it that long."""
        headers = {**self._headers, "Prefer": f"wait={wait_s}"}
        async with self._session.get(f"{self._url}/v1/generations/{generation_id}", headers=headers) as answer:
            body = await answer.json()
        return body.get("status") in _ENDED


async def flood(tenant: Tenant, stop: asyncio.Event) -> None:
    """Posts without pause until `stop` is set."""
    while not stop.is_set():
        await tenant.post()


async def keep_to_share(tenant: Tenant, *, posts: int, share: int, pause_s: float) -> None:
    """Makes `posts` posts, `pause_s` apart, with at most `share` generations unfinished at a time."""
    unfinished: list[str] = []
    for _ in range(posts):
        while len(unfinished) >= share:
            over = await asyncio.gather(*(tenant.ended(each, 1) for each in unfinished))
            unfinished = [each for each, is_over in zip(unfinished, over, strict=True) if not is_over]
        made = await tenant.post()
        if made is not None:
            unfinished.append(made)
        await asyncio.sleep(pause_s)


async def flood_all(url: str, keys: Sequence[str], connections: int, stop: Event, full: Event) -> Seen:
    """What the floods were answered until `stop`; `full` is set at the first refusal."""
    seen, over = Seen(), asyncio.Event()
    async with _session() as session, asyncio.TaskGroup() as group:
        for key in keys:
            for number in range(connections):
                group.create_task(flood(Tenant(session, url, key, seen), over), name=f"flood {number}")
        while not stop.is_set():
            if seen.statuses[429]:
                full.set()
            await asyncio.sleep(0.1)
        over.set()
    return seen


def _flood_process(
    url: str, keys: Sequence[str], connections: int, stop: Event, full: Event, told: "Connection[Seen, Seen]"
) -> None:
    """Floods from a process of its own: in one process the quiet tenant's answers would queue behind the floods'."""
    told.send(asyncio.run(flood_all(url, keys, connections, stop, full)))


async def quiet_alone(stack: stacks.Stack, key: str, options: argparse.Namespace) -> Seen:
    """What the quiet tenant was answered."""
    seen, share = Seen(), max(1, options.cap // (options.floods + 1))
    async with _session() as session:
        tenant = Tenant(session, stack.url, key, seen)
        await keep_to_share(tenant, posts=options.posts, share=share, pause_s=options.pause_s)
    return seen


def play(stack: stacks.Stack, options: argparse.Namespace) -> tuple[Seen, Seen]:
    """What the floods and the quiet tenant were answered."""
    keys = [stack.create_key(f"flood{number}") for number in range(options.floods)]
    quiet_key = stack.create_key("quiet")
    time.sleep(2)  # the gateway reads its keys each second
    context = multiprocessing.get_context("spawn")
    stop, full = context.Event(), context.Event()
    here, there = context.Pipe()
    floods = context.Process(
        target=_flood_process, args=(stack.url, keys, options.connections, stop, full, there), name="floods"
    )
    floods.start()
    try:
        full.wait(60)
        quiet = asyncio.run(quiet_alone(stack, quiet_key, options))
    finally:
        stop.set()
        seen: Seen = here.recv() if here.poll(_CALL_S) else Seen()
        floods.join()
    return seen, quiet


def _session() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=_CALL_S)
    return aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; 0 when the quiet tenant was always accepted, 99 of 100 times within a second."""
    options = _options(argv)
    folder = Path(tempfile.mkdtemp(prefix="darkroom-shares-"))
    gpu = stacks.Emulated(step_ms=options.step_ms)
    environment = {"DARKROOM_CORE_BACKLOG_CAP": str(options.cap), "DARKROOM_LOG_LEVEL": "warning"}
    stack = stacks.prepare(folder, gpu, environment)
    stack.create_key("first")
    begun = time.monotonic()
    try:
        with stacks.running(stack):
            floods, quiet = play(stack, options)
    except stacks.StackError as error:
        print(f"shares: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    good = quiet.statuses[202] == options.posts and quiet.p(99) < 1.0
    print(
        json.dumps(
            {
                "good": good,
                "floods": options.floods,
                "connections": options.floods * options.connections,
                "cap": options.cap,
                "seconds": round(time.monotonic() - begun, 1),
                "quiet": {
                    "accepted": quiet.statuses[202],
                    "posts": options.posts,
                    "statuses": dict(quiet.statuses),
                    "p50_ms": round(quiet.p(50) * 1000, 1),
                    "p99_ms": round(quiet.p(99) * 1000, 1),
                    "longest_ms": round(max(quiet.seconds, default=0.0) * 1000, 1),
                },
                "flood": {
                    "statuses": dict(floods.statuses),
                    "bounds": dict(floods.bounds),
                    "retry_after_s": [min(floods.retry_after_s, default=0), max(floods.retry_after_s, default=0)],
                    "p50_ms": round(floods.p(50) * 1000, 1),
                    "p99_ms": round(floods.p(99) * 1000, 1),
                },
            }
        )
    )
    return 0 if good else 1


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.shares", description=__doc__)
    parser.add_argument("--floods", type=int, default=1, help="tenants that post without pause")
    parser.add_argument("--connections", type=int, default=16, help="of each of them")
    parser.add_argument("--cap", type=int, default=300, help="DARKROOM_CORE_BACKLOG_CAP")
    parser.add_argument("--posts", type=int, default=100, help="of the quiet tenant")
    parser.add_argument("--pause-s", type=float, default=0.1, help="between two of its posts")
    parser.add_argument("--step-ms", type=float, default=4.0, help="of the emulated GPU; 8 steps an image")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
