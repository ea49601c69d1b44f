"""Simulated clients behind gateways: they submit, try again, look, wait, and change their minds."""

import asyncio
from random import Random

from core.assembly import Core
from infra.retry import Retryable
from schema import fast, pb
from tests.simulation import poison
from tests.simulation.checker import Checker
from tests.simulation.gpu import DEAD, HALF, MODEL, SECOND
from tests.simulation.rpc import CoreLine
from tests.simulation.world import World

_ENDED = {3, 4, 5, 6}
_CALL_S = 4.0


def _model(dice: Random) -> str:
    """Most ask for the model that every worker can use."""
    return MODEL if dice.random() < 0.8 else dice.choice((HALF, HALF, SECOND, DEAD))


class Client:
    """One request of one client. `done` once it has seen the end."""

    def __init__(self, world: World, number: int, line: CoreLine, checker: Checker) -> None:
        self.name = f"gen{number}"
        self.done = False
        self._world = world
        self._line = line
        self._checker = checker
        self._dice: Random = world.dice(f"client{number}")
        self._tenant = self._dice.choice(("ann", "bob"))
        self._key = f"key-{number}" if self._dice.random() < 0.6 else ""
        self._spec = fast.GenerationSpec(
            model=_model(world.dice(f"model{number}")),
            width=64,
            height=64,
            num_inference_steps=self._dice.randint(2, 8),
            guidance_scale=poison.draw(self._dice),
            seed=self._dice.getrandbits(32),
            n=self._dice.randint(1, 3),
            output_format=pb.OutputFormat(pb.OutputFormat.PNG),
        )
        self._ttl_s = self._dice.randint(5, 60) if self._dice.random() < 0.2 else 0
        self._priority = self._dice.choice((0, 0, 0, 5, -5))
        self._begins_s = self._dice.random() * 40
        self._cancels_s = self._dice.expovariate(1 / 8) if self._dice.random() < 0.25 else None
        self._erases_s = self._dice.expovariate(1 / 10) if self._dice.random() < 0.4 else None
        self._erases_early = self._dice.random() < 0.4

    async def run(self) -> None:
        """From the first try to the last look."""
        await asyncio.sleep(self._begins_s)
        generation_id = await self._submit()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(generation_id))
            if self._cancels_s is not None:
                group.create_task(self._cancel(generation_id, self._cancels_s))
            if self._erases_s is not None and self._erases_early:
                group.create_task(self._erase(generation_id, self._erases_s))
        if self._erases_s is not None:
            await self._erase(generation_id, self._erases_s)
        self.done = True

    async def _submit(self) -> str:
        attempt = 0
        while True:
            # With a key another gateway may mint another id at a new try; without one the id is what tells repeats.
            item = self._item(f"{self.name}-{attempt if self._key else 0}")

            async def method(core: Core, item: fast.SubmitItem = item) -> list[fast.SubmitResult]:
                return await core.service.submit([item])

            attempt += 1
            try:
                [result] = await self._line.call("submit", method, _CALL_S)
            except Retryable:
                await self._breathe()
                continue
            if int(result.outcome) in {pb.SubmitOutcome.ACCEPTED, pb.SubmitOutcome.REPLAYED}:
                self._checker.accept(result.generation.generation_id, self.name)
                self._checker.look(result.generation)
                return str(result.generation.generation_id)
            if int(result.outcome) != pb.SubmitOutcome.BACKLOG_FULL:
                self._world.violate(f"{self.name} is refused with {result.outcome}")
            await self._breathe()

    def _item(self, generation_id: str) -> fast.SubmitItem:
        return fast.SubmitItem(
            generation_id=generation_id,
            tenant=self._tenant,
            idempotency_key=self._key,
            body_sha256=self.name.encode().ljust(32, b"."),
            spec=self._spec,
            prompts=fast.Prompts(prompt=f"a picture for {self.name}"),
            priority=self._priority,
            ttl_s=self._ttl_s,
        )

    async def _watch(self, generation_id: str) -> None:
        while True:
            wait_ms = self._dice.choice((0, 2_000))

            async def method(core: Core, wait_ms: int = wait_ms) -> fast.GenerationView:
                return await core.service.get(self._tenant, generation_id, wait_ms)

            floor = self._checker.floor(generation_id)
            try:
                view = await self._line.call("get", method, _CALL_S)
            except Retryable:
                pass
            else:
                self._checker.look(view, floor)
                if int(view.status) in _ENDED:
                    return
            await self._breathe()

    async def _cancel(self, generation_id: str, after_s: float) -> None:
        await asyncio.sleep(after_s)

        async def method(core: Core) -> tuple[bool, fast.GenerationView]:
            return await core.service.cancel(self._tenant, generation_id)

        for _ in range(20):
            floor = self._checker.floor(generation_id)
            try:
                cancelled, view = await self._line.call("cancel", method, _CALL_S)
            except Retryable:
                await self._breathe()
                continue
            self._checker.answer_cancel(generation_id, cancelled=cancelled)
            self._checker.look(view, floor)
            return

    async def _erase(self, generation_id: str, after_s: float) -> None:
        await asyncio.sleep(after_s)

        async def method(core: Core) -> tuple[bool, fast.GenerationView]:
            return await core.service.erase(self._tenant, generation_id, operator=False)

        while True:
            floor = self._checker.floor(generation_id)
            try:
                erased, view = await self._line.call("erase", method, _CALL_S)
            except Retryable:
                await self._breathe()
                continue
            self._checker.answer_erase(generation_id, floor, erased=erased)
            self._checker.look(view, (*floor[:2], erased))
            return

    async def _breathe(self) -> None:
        await asyncio.sleep(0.5 + self._dice.random() * 2)
