"""Tenants that ask without pause, and a quiet one beside them that has one image at a time and is never refused."""

import asyncio
from collections import Counter
from typing import Protocol

from core.assembly import Core
from core.domain.shares import ONE, Usage
from core.domain.state import Phase
from infra.retry import Retryable
from schema import fast, pb
from tests.simulation import poison
from tests.simulation.checker import Checker
from tests.simulation.gpu import MODEL
from tests.simulation.rpc import CoreLine
from tests.simulation.world import World

_CALL_S = 4.0
_FLOOD_S = 30.0
_PAUSE_S = 0.4
_QUIET_IMAGES = 6
_ENDED = {3, 4, 5, 6}
_TAKEN = {int(pb.SubmitOutcome.ACCEPTED), int(pb.SubmitOutcome.REPLAYED)}


class Actor(Protocol):
    """What the schedule drives."""

    name: str
    done: bool

    async def run(self) -> None:
        """All of it."""


class _Tenant:
    def __init__(self, world: World, name: str, line: CoreLine, checker: Checker) -> None:
        self.name = name
        self.done = False
        self._world = world
        self._line = line
        self._checker = checker
        self._dice = world.dice(name)

    async def _submit(self, number: int, n: int) -> int | None:
        """What core decided; None when it is not known. Accepted ones are noted."""
        item = fast.SubmitItem(
            generation_id=f"{self.name}_{number}-0",
            tenant=self.name,
            spec=fast.GenerationSpec(
                model=MODEL,
                width=64,
                height=64,
                num_inference_steps=self._dice.randint(2, 4),
                guidance_scale=poison.NONE,
                seed=number,
                n=n,
                output_format=pb.OutputFormat(pb.OutputFormat.PNG),
            ),
            prompts=fast.Prompts(prompt=f"a picture for {self.name}"),
        )

        async def method(core: Core) -> list[fast.SubmitResult]:
            return await core.service.submit([item])

        try:
            [result] = await self._line.call("submit", method, _CALL_S)
        except Retryable:
            return None
        if int(result.outcome) in _TAKEN:
            self._checker.accept(item.generation_id, f"{self.name}_{number}")
        return int(result.outcome)

    async def _cancel(self, number: int) -> None:
        async def method(core: Core) -> tuple[bool, fast.GenerationView]:
            return await core.service.cancel(self.name, f"{self.name}_{number}-0")

        try:
            cancelled, _ = await self._line.call("cancel", method, _CALL_S)
        except Retryable:
            return
        self._checker.answer_cancel(f"{self.name}_{number}-0", cancelled=cancelled)


class Flood(_Tenant):
    """Asks for half a minute, whatever it hears, and cancels some of it."""

    async def run(self) -> None:
        """All of it."""
        await asyncio.sleep(self._dice.random() * 5)
        end_s = self._world.loop.time() + _FLOOD_S
        number = 0
        while self._world.loop.time() < end_s:
            number += 1
            taken = await self._submit(number, self._dice.randint(1, 3))
            if taken in _TAKEN and self._dice.random() < 0.3:
                await self._cancel(number)
            await asyncio.sleep(self._dice.random() * _PAUSE_S)
        self.done = True


class Quiet(_Tenant):
    """One image at a time: it has nothing unfinished whenever it asks, so it is within its rights."""

    async def run(self) -> None:
        """All of it."""
        await asyncio.sleep(5 + self._dice.random() * 5)
        for number in range(_QUIET_IMAGES):
            while (outcome := await self._submit(number, 1)) is None:  # noqa: ASYNC110  (it polls, as clients do)
                await asyncio.sleep(1)
            if outcome not in _TAKEN:
                self._world.violate(f"{self.name} has nothing unfinished and is refused with {outcome}")
            if self._dice.random() < 0.3:
                await self._cancel(number)
            while not await self._ended(f"{self.name}_{number}-0"):  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        self.done = True

    async def _ended(self, generation_id: str) -> bool:
        async def method(core: Core) -> fast.GenerationView:
            return await core.service.get(self.name, generation_id)

        floor = self._checker.floor(generation_id)
        try:
            view = await self._line.call("get", method, _CALL_S)
        except Retryable:
            return False
        self._checker.look(view, floor)
        return int(view.status) in _ENDED


def tenants(world: World, line: CoreLine, checker: Checker, *, cap: int) -> list[Actor]:
    """Those of this schedule: none where the cap would not be felt, and in half of the others."""
    if cap > 100 or world.dice("flood").random() < 0.5:
        return []
    count = world.dice("flood").randint(1, 3)
    floods: list[Actor] = [Flood(world, f"flood{number}", line, checker) for number in range(count)]
    return [*floods, Quiet(world, "quiet", line, checker)]


def look_at_the_books(world: World, line: CoreLine, checker: Checker) -> None:
    """While core has nothing to write, its books say what the log says. Nothing of core's own counting is believed."""
    core = line.core
    if core is None or not core.writer.idle:
        return
    truth: Counter[str] = Counter()
    for state in checker.states.values():
        images = sum(image.phase < Phase.PUBLISHED for image in state.images) if state.open else 0
        if images:
            truth[state.tenant] += images  # each weighs as one: no gateway tells what is usual
    usage = core.writer.usage
    wrong = [each for each, images in truth.items() if usage.own(each) != Usage(images * ONE, images)]
    if wrong or usage.active != len(truth) or usage.total != Usage(truth.total() * ONE, truth.total()):
        world.violate(f"core counts {usage} as unfinished, and the log says {truth}")
