"""Carries the plan out: kills, stops, faults and their ends, at their times. Notes what it did and when.

It acts on processes and proxy only; `loadtests.chaos.checks` judges the outcome.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from loadtests.chaos import log
from loadtests.chaos.cloud import Cloud
from loadtests.chaos.plan import Action, Fault, Kill, Kind, Stop
from loadtests.chaos.proxy import FaultProxy
from loadtests.chaos.stack import Prey

_WATCH_S = 0.1


@dataclass(slots=True)
class Done:
    """What was done. Times are Unix milliseconds; heads are (position, chain) of the log shortly before a kill."""

    kills: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    killed_at_ms: list[int] = field(default_factory=list)
    heads: list[tuple[int, bytes]] = field(default_factory=list)
    missed: int = 0
    """Actions for which there was no process to be found."""


class Storm:
    """Carries out one plan; `run` returns when every action has ended. `say` prints a line at the terminal."""

    def __init__(
        self, prey: Prey, proxy: FaultProxy, cloud: Cloud, rng: random.Random, say: Callable[[str], None]
    ) -> None:
        self._prey = prey
        self._proxy = proxy
        self._cloud = cloud
        self._rng = rng
        self._say = say
        self.done = Done()

    async def watch(self) -> None:
        """Start again what is down, until cancelled."""
        while True:
            self._prey.revive()
            await asyncio.sleep(_WATCH_S)

    async def run(self, actions: Sequence[Action]) -> None:
        """All of the plan, from now on."""
        begin_s = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for action in actions:
                await asyncio.sleep(max(0.0, begin_s + action.at_s - asyncio.get_running_loop().time()))
                group.create_task(self._carry_out(action), name=type(action).__name__)

    async def _carry_out(self, action: Action) -> None:
        match action:
            case Kill():
                await self._kill(action)
            case Stop():
                await self._stop(action)
            case Fault():
                await self._spoil(action)
            case _:
                assert_never(action)

    async def _kill(self, kill: Kill) -> None:
        head = await asyncio.to_thread(log.head, self._prey.stack.log_path)
        at_ms = time.time_ns() // 1_000_000
        # If no process of this kind runs just now, one of another kind is killed.
        kinds: tuple[Kind, ...] = (kill.kind, "worker", "gateway", "core")
        name = next((each for kind in kinds if (each := self._prey.kill(kind, kill.away_s, self._rng))), None)
        if name is None:
            self.done.missed += 1
            return
        self.done.killed_at_ms.append(at_ms)
        self.done.kills[name.partition("-")[0]] += 1
        self.done.heads += [head] if head else []
        self._say(f"kill {name}")

    async def _stop(self, stop: Stop) -> None:
        name = self._prey.stop(stop.kind, self._rng)
        if name is None:
            self.done.missed += 1
            return
        self._say(f"stop {name} for {stop.for_s:.1f} s")
        await asyncio.sleep(stop.for_s)
        # One that was killed meanwhile counts as a kill alone.
        self.done.stops[name.partition("-")[0]] += self._prey.resume(name)

    async def _spoil(self, fault: Fault) -> None:
        self._say(f"fault {fault.weather} for {fault.for_s:.1f} s")
        if fault.weather == "purge":
            self.done.faults["purge"] += await self._cloud.purge()
            return
        before = self._proxy.counts[fault.weather]
        self._proxy.change(fault.weather, fault.chance)
        await asyncio.sleep(fault.for_s)
        self._proxy.change(None)
        self.done.faults[fault.weather] += self._proxy.counts[fault.weather] > before
