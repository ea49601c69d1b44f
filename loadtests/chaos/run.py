"""One chaos run: start the stack, run load and faults together, heal, wait until quiet, check, stop, check."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from loadtests.chaos import checks, log
from loadtests.chaos.api import Api
from loadtests.chaos.clients import CANARY, Clients
from loadtests.chaos.cloud import Cloud
from loadtests.chaos.ledger import Ledger
from loadtests.chaos.plan import Asked, timetable
from loadtests.chaos.proxy import FaultProxy
from loadtests.chaos.recovery import Recovery
from loadtests.chaos.stack import Prey, prepare
from loadtests.chaos.storm import Done, Storm
from worker.engines.emulated import read_emulated

TENANTS = ("alice", "bob")
_CONNECTIONS = 500
_LOOK_S = 0.5


@dataclass(slots=True, kw_only=True)
class Outcome:
    """All that is known after a run."""

    done: Done
    ledger: Ledger
    recovery: Recovery
    found: checks.Findings = field(default_factory=checks.Findings)
    deaths: Counter[str] = field(default_factory=Counter)
    cries: Counter[str] = field(default_factory=Counter)
    spoilt: Counter[str] = field(default_factory=Counter)
    """Requests that the proxy spoilt, by kind."""
    quiet_after_s: float | None = None
    """From the end of the faults to quiet; None: it never was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to run. `quiet_s`: how long the stack may take to finish after the faults have ended."""

    asked: Asked
    rate: float
    seed: int
    quiet_s: float


async def run(order: Order, folder: Path, say: Callable[[str], None]) -> Outcome:
    """Runs the whole order and always ends every process. Raises StackError if the stack does not become ready."""
    prey = prepare(folder, visibility_s=order.asked.visibility_s)
    keys = {tenant: prey.stack.create_key(tenant) for tenant in TENANTS}
    rng = random.Random(order.seed)
    proxy = FaultProxy(prey.proxy_port, prey.stack.plan.ports.emulator, random.Random(rng.random()))
    cloud = Cloud(*prey.cloud)
    ledger = Ledger(folder / "ledger.jsonl")
    try:
        await proxy.start()
        prey.start()  # not on a thread, which would go on starting after an interrupt
        await asyncio.to_thread(prey.ready)
        say(f"{len(prey.programs)} processes are ready, seed {order.seed}, files in {folder}")
        storm = Storm(prey, proxy, cloud, random.Random(rng.random()), say)
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
        with ledger:
            async with aiohttp.ClientSession(connector=connector) as session:
                api = Api(session, prey.gateway_urls, keys, ledger, random.Random(rng.random()))
                outcome = await _attacked(order, api, storm, proxy, prey, rng, say)
        # On a thread: the services need the proxy, which lives in this loop, to end cleanly.
        await asyncio.to_thread(_check_still, outcome, prey, list(keys.values()))
        return outcome
    finally:
        prey.kill_everything()
        cloud.close()
        await proxy.close()


async def _attacked(
    order: Order, api: Api, storm: Storm, proxy: FaultProxy, prey: Prey, rng: random.Random, say: Callable[[str], None]
) -> Outcome:
    """Runs load and faults, waits until the stack is quiet, and checks REST, which needs the running stack."""
    actions = timetable(order.asked, random.Random(order.seed))
    clients = Clients(api, random.Random(rng.random()), read_emulated)
    loop = asyncio.get_running_loop()
    ledger = api.ledger
    load = asyncio.ensure_future(_loaded(clients, order.rate, loop.time() + order.asked.seconds))
    watch = asyncio.ensure_future(storm.watch())
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(storm.run(actions), name="storm")
            group.create_task(_reports(ledger, storm, order.asked.seconds, say), name="reports")
        proxy.change(None)
        prey.heal()
        say("healed")
        healed_s = loop.time()
        quiet = await _quiet(load, prey, Cloud(*prey.cloud), order.quiet_s)
        outcome = Outcome(done=storm.done, ledger=ledger, recovery=Recovery(storm.done.killed_at_ms))
        outcome.quiet_after_s = round(loop.time() - healed_s, 1) if quiet else None
        say(f"quiet after {outcome.quiet_after_s} s" if quiet else f"not quiet after {order.quiet_s:g} s")
        if quiet:
            await asyncio.to_thread(prey.ready)
            await checks.check_rest(api, ledger, outcome.found)
        outcome.spoilt, outcome.deaths = proxy.counts, prey.deaths
        return outcome
    finally:
        for task in (load, watch):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _loaded(clients: Clients, rate: float, until_s: float) -> None:
    """All clients, until the last has what it wants."""
    async with asyncio.TaskGroup() as group:
        await clients.arrive(rate, until_s, group, asyncio.get_running_loop().time)


async def _reports(ledger: Ledger, storm: Storm, seconds: float, say: Callable[[str], None]) -> None:
    """A line every minute."""
    for minute in range(1, int(seconds // 60) + 1):
        await asyncio.sleep(60)
        say(
            f"{minute} min: {len(ledger.told)} accepted, {len(ledger.open)} open, {storm.done.kills.total()} kills, "
            f"{ledger.retries} retries, {ledger.wrong.total()} wrong"
        )


async def _quiet(load: "asyncio.Future[None]", prey: Prey, cloud: Cloud, within_s: float) -> bool:
    """Waits until all clients are done, all generations have ended and both queues are empty; False: not in time."""
    try:
        async with asyncio.timeout(within_s):
            await asyncio.shield(load)
            while not await _is_quiet(prey, cloud):  # noqa: ASYNC110  (another process's state)
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        return False
    finally:
        cloud.close()
    return True


async def _is_quiet(prey: Prey, cloud: Cloud) -> bool:
    def unfinished() -> int:
        with log.connect(prey.stack.log_path) as connection:
            return log.unfinished(connection)

    return await asyncio.to_thread(unfinished) == 0 and await cloud.waiting() == 0


def _check_still(outcome: Outcome, prey: Prey, keys: Sequence[str]) -> None:
    """Checks the bucket, ends the processes, then checks the event log and the log lines."""
    found, path, logs = outcome.found, prey.stack.log_path, prey.stack.folder / "logs"
    bucket = Cloud(*prey.cloud)
    try:
        checks.check_bucket(path, bucket, found)
    finally:
        bucket.close()
    for trouble in prey.end():
        found.complain(trouble)
    if trouble := prey.stack.verify():
        found.complain(trouble)
    checks.check_log(path, outcome.ledger, outcome.recovery, found)
    checks.check_growth(path, outcome.done.heads, found)
    checks.check_lines(logs, [CANARY, *(key.rsplit("_", 1)[1] for key in keys)], found)
    outcome.cries.update(checks.cries(logs))
